"""What a block of load measured; pure data, and the way to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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

    def to_json(self) -> dict[str, Any]:
        """Return the fields, ready for json.dumps."""
        return asdict(self) | {"errors": dict(self.errors), "timeline": [asdict(point) for point in self.timeline]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadResult:
        """Read what `to_json` returned."""
        return cls(**(dict(value) | {"timeline": tuple(TimelinePoint(**point) for point in value["timeline"])}))
