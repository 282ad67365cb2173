"""What a block of load measured, request by request and as a whole; in words."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

LATE_S = 0.010
"""A request sent so long after it was due is late; timers of an idle event loop are within 2 ms."""

_INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_MAX_INTERVALS = 60
_BUSY_CLIENT = 0.9


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """The requests that were due within one interval.

    Attributes:
        start_s: Start of the interval, from the end of the warm-up on.
        num_ok: Those answered with 2xx.
        num_errors: The others.
        p50_ms: Median latency of `num_ok`; None where there were none.
        p99_ms: Their 99th percentile.
    """

    start_s: float
    num_ok: int
    num_errors: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One block of load on one server.

    A request belongs to the block if it was due within the measured window, and is waited for. A latency is the time
    from when the request was due (closed loop: sent) to the last byte of its answer. Percentiles are taken over every
    request answered with 2xx, linear between neighbours.

    Attributes:
        concurrency: Requests in flight: always (closed loop) or at most (open loop).
        rate: Requests per second that were asked for; None in a closed loop.
        duration_s: Length of the measured window, without warm-up; shorter than asked for if the load was stopped.
        num_ok: Requests answered with 2xx.
        num_answered: Answers of any status, warm-up included: what the server's CPU went to.
        errors: Every other outcome: HTTP status or exception name -> count. `NotStarted` is a request of an open loop
            that could not be sent within its timeout.
        first_error: Status or exception and the start of the body of the first of `errors`; None without errors.
        requests_per_second: Answers with 2xx that came in within the window, per second: what the server did, where
            `num_ok` of an open loop says what was asked of it.
        mean_ms: Mean latency; None, as all latencies, if `num_ok` is 0.
        p50_ms: Median latency.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        max_ms: The longest.
        client_cpu_s: CPU time this process used within the window. Near `duration_s`, the generator was the limit.
        num_late: Requests of an open loop sent more than 10 ms after they were due: the limit in flight was reached,
            or this process was too slow.
        timeline: The block in intervals of equal length.
    """

    concurrency: int
    rate: float | None
    duration_s: float
    num_ok: int
    num_answered: int
    errors: Mapping[str, int]
    first_error: str | None
    requests_per_second: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    client_cpu_s: float
    num_late: int
    timeline: tuple[TimelinePoint, ...]

    @property
    def num_errors(self) -> int:
        """Requests with any outcome but 2xx."""
        return sum(self.errors.values())

    def describe_loop(self) -> str:
        """Return how requests were sent."""
        if self.rate is None:
            return f"closed loop, {self.concurrency} in flight"
        return f"open loop, {self.rate:g} requests/s, at most {self.concurrency} in flight"

    def describe(self) -> Iterator[str]:
        """Yield lines for people: rate and errors, latencies, and what casts doubt on them."""
        yield (
            f"{self.requests_per_second:.1f} requests/s, {self.num_ok} answered with 2xx, "
            f"errors: {describe_errors(self.errors)}"
        )
        if self.first_error:
            yield f"first error: {self.first_error}"
        latencies_ms = ((name, getattr(self, f"{name}_ms")) for name in ("mean", "p50", "p90", "p99", "max"))
        if self.num_ok:
            yield "latency in ms: " + ", ".join(f"{name} {value:.1f}" for name, value in latencies_ms)
        if self.num_late:
            yield f"{self.num_late} requests were sent late (no room in flight, or a busy client); their wait is counted"
        if self.client_cpu_s > _BUSY_CLIENT * self.duration_s > 0:
            used = self.client_cpu_s / self.duration_s
            yield f"note: this client used {used:.0%} of a CPU: it may be the limit, not the server"


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
    _due_s: array[float] = field(default_factory=lambda: array("d"))
    _latencies_ms: array[float] = field(default_factory=lambda: array("d"))
    """One for each request due; not a number where it failed."""
    _errors: Counter[str] = field(default_factory=Counter)
    _first_error: str | None = None

    def record(self, due_s: float, sent_s: float, done_s: float, status: int | None, error: str = "") -> None:
        """Count one request.

        Args:
            due_s: When it should have been sent; this and the next two are times of one clock.
            sent_s: When it was.
            done_s: When its answer was complete, or it had failed.
            status: HTTP status; None without an answer.
            error: Exception name, or the start of the body of an error's answer; empty for success.
        """
        is_ok = status is not None and 200 <= status < 300
        self._num_answered += status is not None
        self._num_ok_in_window += is_ok and self.start_s <= done_s < self.end_s
        if due_s < self.start_s:
            return
        self._num_late += sent_s - due_s > LATE_S
        self._due_s.append(due_s)
        self._latencies_ms.append((done_s - due_s) * 1000.0 if is_ok else math.nan)
        if not is_ok:
            self._errors[error if status is None else str(status)] += 1
            self._first_error = self._first_error or " ".join(f"{status or ''} {error}".split())

    def close(self, now_s: float, client_cpu_s: float) -> None:
        """End the window, maybe before its time, and note the CPU time of this process within it."""
        self.end_s = min(self.end_s, now_s)
        self._duration_s = self.end_s - self.start_s
        self._client_cpu_s = client_cpu_s

    def summarize(self, *, concurrency: int, rate: float | None) -> LoadResult:
        """Return what was measured; a window that was never closed has a length of 0."""
        ok_ms = [latency_ms for latency_ms in self._latencies_ms if not math.isnan(latency_ms)]
        p50_ms, p90_ms, p99_ms, max_ms = percentiles(ok_ms, (0.5, 0.9, 0.99, 1.0))
        return LoadResult(
            concurrency=concurrency,
            rate=rate,
            duration_s=self._duration_s,
            num_ok=len(ok_ms),
            num_answered=self._num_answered,
            errors=dict(self._errors.most_common()),
            first_error=self._first_error,
            requests_per_second=self._num_ok_in_window / self._duration_s if self._duration_s else 0.0,
            mean_ms=sum(ok_ms) / len(ok_ms) if ok_ms else None,
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
        intervals: list[list[float]] = [[] for _ in range(-int(-self._duration_s // interval_s))]
        for due_s, latency_ms in zip(self._due_s, self._latencies_ms, strict=True):
            intervals[min(int((due_s - self.start_s) / interval_s), len(intervals) - 1)].append(latency_ms)
        for number, latencies_ms in enumerate(intervals):
            ok_ms = [latency_ms for latency_ms in latencies_ms if not math.isnan(latency_ms)]
            p50_ms, p99_ms = percentiles(ok_ms, (0.5, 0.99))
            num_errors = len(latencies_ms) - len(ok_ms)
            yield TimelinePoint(round(number * interval_s, 3), len(ok_ms), num_errors, p50_ms, p99_ms)


def describe_errors(errors: Mapping[str, int]) -> str:
    """Return errors as `12 x 503, 1 x TimeoutError`; none as 0."""
    return ", ".join(f"{count} x {name}" for name, count in errors.items()) or "0"


def interval_length_s(duration_s: float) -> float:
    """Return the shortest round interval that cuts a window into at most 60."""
    return next((length for length in _INTERVALS_S if duration_s <= length * _MAX_INTERVALS), _INTERVALS_S[-1])


def percentiles(values: Sequence[float], quantiles: Sequence[float]) -> list[float | None]:
    """Return the quantiles (0 to 1) of values, linear between neighbours; None each of no values."""
    import numpy as np  # here: `ts-handlers --help` starts without it

    if not values:
        return [None for _ in quantiles]
    return [float(value) for value in np.quantile(np.asarray(values, np.float64), quantiles)]
