from __future__ import annotations

import logging

import pytest

from ts_handlers.metrics import OneWrite

LAST = "[METRICS]PredictionTime.ms:3|#Level:Model|#hostname:here,1"


def test_the_lines_of_a_batch_are_one_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = logging.getLogger("tests.metric_lines")
    together = OneWrite(source)
    source.info("[METRICS]%s", "one:1")
    source.info("[METRICS]two:2")
    assert caplog.messages == []
    source.info(LAST)
    source.info("[METRICS]three:3")
    assert caplog.messages == [f"[METRICS]one:1\n[METRICS]two:2\n{LAST}"]
    together.close()
    assert caplog.messages[1:] == ["[METRICS]three:3"]
    source.info("by itself")
    assert caplog.messages[2:] == ["by itself"]


def test_lines_whose_last_never_comes_are_written_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = logging.getLogger("tests.metric_lines")
    together = OneWrite(source)
    for number in range(100):
        source.info("[METRICS]%d", number)
    assert len(caplog.messages) == 1
    together.close()
