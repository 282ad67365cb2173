"""Ctrl-C and SIGTERM as KeyboardInterrupt, except where something has to be finished first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopper:
    """Turns the first signal that means "end" into KeyboardInterrupt; later ones change nothing.

    A context manager: before and after it, signals do what they did. One that is ignored (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._is_shielded = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stopper:  # noqa: PYI034 (typing.Self needs Python 3.11)
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise KeyboardInterrupt again, where whatever was running when it was first raised has swallowed it."""
        if self.is_requested:
            raise KeyboardInterrupt

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Let the block finish; what was requested meanwhile is raised after it."""
        was_requested = self.is_requested
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False
        if self.is_requested and not was_requested:
            raise KeyboardInterrupt

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        is_first, self.is_requested = not self.is_requested, True
        if is_first and not self._is_shielded:
            raise KeyboardInterrupt
