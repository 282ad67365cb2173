"""Signals that mean "end", as an exception."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_MOST_RAISED = 2

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """A signal asks to end; like KeyboardInterrupt it passes every handler of errors, and ends every wait."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn signals that mean "end" into an exception; one that is ignored (nohup) stays ignored.

    So do all after the second: that one ends waiting, and they would interrupt the cleaning up.
    """
    num_raised = 0

    def request(number: int, _frame: FrameType | None) -> None:
        nonlocal num_raised
        num_raised += 1
        if num_raised <= _MOST_RAISED:
            raise StopRequested(number)

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, request)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """Clean up undisturbed: it takes a moment only, and that the program is to end is known."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
