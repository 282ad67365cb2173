from __future__ import annotations

import io
import sys

import pytest

from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.operate.tune.objective import Measurement
from ts_handlers.operate.tune.progress import TrialProgress, describe_trial
from ts_handlers.operate.tune.results import Trial
from ts_handlers.operate.tune.space import Setting

SETTING = Setting(2, 1, 8, 1)
GOOD = Trial(SETTING, 0, 5, 5, 12, Measurement(10.25, 1, 2, 3.4, 50))
BAD = Trial(SETTING, 0, 5, 0, 3, None, "it did not start")


class Terminal(io.StringIO):
    """A stream that says it is a terminal, which a test has none of."""

    def isatty(self) -> bool:
        return True


def go_through() -> None:
    with TrialProgress() as progress:
        progress.plan(2, 150)
        for trial in (GOOD, BAD):
            progress.begin("round 1", SETTING)
            progress.end(trial)
        progress.plan(0, 0)


def test_a_line_for_each_trial_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    go_through()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "round 1: 2 workers x 1 thread, batch 8, delay 1 ms: 10.2 requests/s, p99 3 ms (about 2 min left)",
        "round 1: 2 workers x 1 thread, batch 8, delay 1 ms: failed: it did not start (about 2 min left)",
    ]


def test_a_bar_with_the_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    go_through()
    text = terminal.getvalue()
    assert "1/2 trials, about 2 min left" in text
    assert "less than a minute left" in text
    assert describe_trial(GOOD) in text
    assert describe_trial(BAD) in text


def test_without_tqdm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(RuntimeUnavailableError, match=r"ts_handlers\[operate\]"):
        TrialProgress()
