"""When each request is due: what makes a loop closed or open."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

PAUSE_AFTER_FAILURE_S = 0.05
"""A closed loop waits so long after a connection that failed: it would spin on a server that is gone."""


class Schedule(Protocol):
    """Gives each client the time its next request is due."""

    pause_after_failure_s: float

    def next_due_s(self) -> float | None:
        """Return the time of the clock when the next request is due; None when the load is over."""


class ClosedLoop:
    """A request is due as soon as a client is free; a slow server is asked less."""

    def __init__(self, end_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.pause_after_failure_s = PAUSE_AFTER_FAILURE_S
        self._end_s = end_s
        self._clock = clock

    def next_due_s(self) -> float | None:
        """Return the current time."""
        now = self._clock()
        return now if now < self._end_s else None


class OpenLoop:
    """Requests are due at a constant rate, whatever the server does.

    A client that is free takes the earliest request that nobody has taken; while all are busy, what is due waits, and
    its latency counts from when it was due. So a server that stalls is charged for every request of that time, not for
    one a client ("coordinated omission").
    """

    def __init__(self, start_s: float, end_s: float, rate: float) -> None:
        self.pause_after_failure_s = 0.0
        self._start_s = start_s
        self._end_s = end_s
        self._rate = rate
        self._num_taken = 0

    def next_due_s(self) -> float | None:
        """Return the time of the earliest request that is not taken."""
        due_s = self._start_s + self._num_taken / self._rate
        if due_s >= self._end_s:
            return None
        self._num_taken += 1
        return due_s
