"""How a search goes, on stderr: a bar with the time left on a terminal, else a line for each trial."""

from __future__ import annotations

import sys
import time
from typing import Any

from ts_handlers.operate.tune.results import Trial
from ts_handlers.operate.tune.space import Setting
from ts_handlers.optional import import_optional

_FORMAT = "{l_bar}{bar:20}| {n_fmt}/{total_fmt} trials{postfix}"


class TrialProgress:
    """The bar of a search; a context manager that closes it.

    Raises:
        RuntimeUnavailableError: tqdm is not installed.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        tqdm = import_optional("tqdm", "progress is shown with tqdm", extra="operate").tqdm
        self._bar: Any = tqdm(bar_format=_FORMAT, disable=not self._is_terminal, leave=False)
        self._num_done = 0
        self._ends_at = time.monotonic()
        self._what = ""

    def __enter__(self) -> TrialProgress:  # noqa: PYI034 (typing.Self needs Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def plan(self, num_trials: int, seconds_left: float) -> None:
        """So many trials are left, which will take so long."""
        self._bar.total = self._num_done + num_trials
        self._ends_at = time.monotonic() + seconds_left
        self._show()

    def begin(self, what: str, setting: Setting) -> None:
        """A trial begins."""
        self._what = what
        self._bar.set_description_str(f"{what}: {setting.describe()}", refresh=False)
        self._show()

    def end(self, trial: Trial) -> None:
        """A trial has ended: it is a line of its own, above the bar."""
        self._num_done += 1
        line = f"{self._what}: {describe_trial(trial)}"
        if self._is_terminal:
            self._bar.write(line, file=sys.stderr)
            self._bar.n = self._num_done
            self._show()
        else:
            print(f"{line} ({self._left()})", file=sys.stderr, flush=True)

    def _left(self) -> str:
        minutes = (self._ends_at - time.monotonic()) / 60
        return "less than a minute left" if minutes < 1 else f"about {minutes:.0f} min left"

    def _show(self) -> None:
        self._bar.set_postfix_str(self._left(), refresh=True)


def describe_trial(trial: Trial) -> str:
    """Say what came of a trial in a line."""
    if trial.measured is None:
        return f"{trial.setting.describe()}: failed: {trial.reason}"
    measured = trial.measured
    return f"{trial.setting.describe()}: {measured.requests_per_second:.1f} requests/s, p99 {measured.p99_ms:.0f} ms"
