"""Signals that mean "end", as an exception; one that is ignored (nohup) stays ignored."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MOST_RAISED = 2

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """A signal asks to end; like KeyboardInterrupt it passes every handler of errors, and ends every wait."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn the first two signals that mean "end" into an exception, wherever the program is.

    The second ends waiting. Further ones do nothing: they would interrupt the cleaning up.
    """
    numbers: list[int] = []

    def request(number: int) -> None:
        numbers.append(number)
        if len(numbers) <= _MOST_RAISED:
            raise StopRequested(number)

    with _handled_by(request):
        yield


@contextmanager
def stop_when_asked() -> Iterator[Callable[[], None]]:
    """Note signals that mean "end", and yield what raises StopRequested once one has come: nothing else is cut short."""
    numbers: list[int] = []

    def check() -> None:
        if numbers:
            raise StopRequested(numbers[0])

    with _handled_by(numbers.append):
        yield check


def ignore_stop_signals() -> None:
    """Clean up undisturbed: it takes a moment only, and that the program is to end is known."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled_by(handle: Callable[[int], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, lambda received, _frame: handle(received))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
