"""Outcomes of single requests, and their summary."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ts_handlers.operate.load.result import LoadResult, TimelinePoint

LATE_S = 0.010
"""A request sent so long after it was due is late; timers of an idle event loop are within 2 ms."""

_INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_MAX_INTERVALS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended; times are those of one clock, in seconds.

    Attributes:
        due_s: When it should have been sent.
        sent_s: When it was.
        done_s: When its answer was complete, or it had failed.
        status: HTTP status; None without an answer.
        error: Exception name, or the start of the body of an error's answer; empty for success.
    """

    due_s: float
    sent_s: float
    done_s: float
    status: int | None
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the answer was 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class Samples:
    """Every request due in a window of time.

    Attributes:
        start_s: Start of the window: the end of the warm-up.
        end_s: Its end.
    """

    start_s: float
    end_s: float
    _duration_s: float = 0.0
    _client_cpu_s: float = 0.0
    _num_answered: int = 0
    _num_ok_in_window: int = 0
    _num_late: int = 0
    _ok_due_s: array[float] = field(default_factory=lambda: array("d"))
    _latencies_ms: array[float] = field(default_factory=lambda: array("d"))
    _failed_due_s: array[float] = field(default_factory=lambda: array("d"))
    _errors: Counter[str] = field(default_factory=Counter)
    _first_error: str | None = None

    def record(self, outcome: Outcome) -> None:
        """Count one request."""
        self._num_answered += outcome.status is not None
        self._num_ok_in_window += outcome.is_ok and self.start_s <= outcome.done_s < self.end_s
        if outcome.due_s < self.start_s:
            return
        self._num_late += outcome.sent_s - outcome.due_s > LATE_S
        if outcome.is_ok:
            self._ok_due_s.append(outcome.due_s)
            self._latencies_ms.append((outcome.done_s - outcome.due_s) * 1000.0)
        else:
            self._failed_due_s.append(outcome.due_s)
            self._errors[outcome.error if outcome.status is None else str(outcome.status)] += 1
            if self._first_error is None:
                self._first_error = " ".join(f"{outcome.status or ''} {outcome.error}".split())

    def close(self, now_s: float, client_cpu_s: float) -> None:
        """End the window, maybe before its time, and note the CPU time of this process within it."""
        self.end_s = min(self.end_s, now_s)
        self._duration_s = self.end_s - self.start_s
        self._client_cpu_s = client_cpu_s

    def summarize(self, *, concurrency: int, rate: float | None) -> LoadResult:
        """Return what was measured; a window that was never closed has a length of 0."""
        latencies_ms = self._latencies_ms
        p50_ms, p90_ms, p99_ms, max_ms = percentiles(latencies_ms, (0.5, 0.9, 0.99, 1.0))
        return LoadResult(
            concurrency=concurrency,
            rate=rate,
            duration_s=self._duration_s,
            num_ok=len(latencies_ms),
            num_answered=self._num_answered,
            errors=dict(self._errors.most_common()),
            first_error=self._first_error,
            requests_per_second=self._num_ok_in_window / self._duration_s if self._duration_s else 0.0,
            mean_ms=sum(latencies_ms) / len(latencies_ms) if latencies_ms else None,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            max_ms=max_ms,
            client_cpu_s=self._client_cpu_s,
            num_late=self._num_late,
            timeline=tuple(self._timeline()),
        )

    def _timeline(self) -> Iterator[TimelinePoint]:
        interval_s = interval_length_s(self._duration_s)
        count = -int(-self._duration_s // interval_s)
        latencies_ms: list[list[float]] = [[] for _ in range(count)]
        num_errors = [0] * count
        for due_s, latency_ms in zip(self._ok_due_s, self._latencies_ms, strict=True):
            latencies_ms[self._interval(due_s, interval_s, count)].append(latency_ms)
        for due_s in self._failed_due_s:
            num_errors[self._interval(due_s, interval_s, count)] += 1
        for number in range(count):
            p50_ms, p99_ms = percentiles(latencies_ms[number], (0.5, 0.99))
            start_s = round(number * interval_s, 3)
            yield TimelinePoint(start_s, len(latencies_ms[number]), num_errors[number], p50_ms, p99_ms)

    def _interval(self, due_s: float, interval_s: float, count: int) -> int:
        return min(int((due_s - self.start_s) / interval_s), count - 1)


def interval_length_s(duration_s: float) -> float:
    """Return the shortest round interval that cuts a window into at most 60."""
    return next((length for length in _INTERVALS_S if duration_s <= length * _MAX_INTERVALS), _INTERVALS_S[-1])


def percentiles(values: Sequence[float], quantiles: Sequence[float]) -> list[float | None]:
    """Return the quantiles (0 to 1) of values, linear between neighbours; None each of no values."""
    import numpy as np  # here: `ts-handlers --help` starts without it

    if not values:
        return [None for _ in quantiles]
    return [float(value) for value in np.quantile(np.asarray(values, np.float64), quantiles)]
