from __future__ import annotations

import logging

import pytest

from ts_handlers.hosts.torchserve import metrics
from ts_handlers.hosts.torchserve.metrics import OneWrite, WorkerMetrics, silence_batches

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


def test_a_batch_that_is_no_sample_is_silent_but_for_what_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = logging.getLogger("tests.metric_lines")
    sampled = iter([False, False])
    together = OneWrite(source, lambda: next(sampled))
    source.info(LAST)
    assert caplog.messages == []
    source.info("[METRICS]rejected:1")
    source.info(LAST)
    assert caplog.messages == ["[METRICS]rejected:1"]
    together.close()


class Recorded:
    """A metrics cache that keeps what is emitted; TorchServe's prints it."""

    def __init__(self) -> None:
        self.model_name = "m"
        self.cache: dict[str, dict[str, object]] = {}
        self.values: list[tuple[str, float]] = []

    def add_metric_to_cache(self, *, metric_name: str, **_: object) -> object:
        record = self.values.append

        class Metric:
            def add_or_update(self, value: float, dimensions: list[str]) -> None:
                record((metric_name, value))

        return Metric()


def test_histograms_take_four_batches_a_second_and_counters_all() -> None:
    cache, now = Recorded(), iter([0.0, 0.05, 0.2499, 0.25, 5.0])
    worker = WorkerMetrics(cache, str, lambda: next(now))
    for number in range(5):
        worker.begin_batch()
        worker.observe(metrics.BATCH_FILL, number)
        worker.observe(metrics.REJECTED_ROWS, number, "code")
    fills = [value for name, value in cache.values if name == metrics.BATCH_FILL.name]
    rejected = [value for name, value in cache.values if name == metrics.REJECTED_ROWS.name]
    assert fills == [0, 3, 4]
    assert rejected == [0, 1, 2, 3, 4]


def test_torchserves_line_for_every_batch_is_dropped_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    root = logging.getLogger("tests.as_root")
    silence_batches(root)
    silence_batches(root)
    assert len(root.filters) == 1
    root.info("Backend received inference at: %d", 1)
    root.info("Frontend disconnected.")
    assert caplog.messages == ["Frontend disconnected."]
