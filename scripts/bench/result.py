"""What a block of load measured, and the arithmetic over blocks: pure functions and frozen dataclasses, no I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


def percentile(values: Sequence[float], q: float) -> float | None:
    """Return the `q` quantile (0 to 1) of `values`, linear between neighbours as numpy has it; None of nothing."""
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q is {q}; a quantile is from 0 to 1")
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One block of load on one server.

    Attributes:
        clients: Closed-loop clients, each with one request in flight.
        seconds: Length of the measured window, without warm-up.
        num_ok: Requests answered with 200 within the window.
        num_answered: Requests with any status, warm-up included: what the server's CPU went to.
        errors: Every other outcome within the window: HTTP status or exception name -> count.
        p50_ms: Median latency of the requests in `num_ok`; None if there were none.
        p90_ms: Their 90th percentile.
        p99_ms: Their 99th percentile.
        client_cpu_seconds: CPU the load generator itself used within the window.
    """

    clients: int
    seconds: float
    num_ok: int
    num_answered: int
    errors: dict[str, int]
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    client_cpu_seconds: float

    @classmethod
    def from_samples(
        cls,
        latencies_ms: Sequence[float],
        errors: Mapping[str, int],
        *,
        clients: int,
        seconds: float,
        num_answered: int,
        client_cpu_seconds: float,
    ) -> LoadResult:
        """Summarize the latencies of the successful requests of one window."""
        return cls(
            clients=clients,
            seconds=seconds,
            num_ok=len(latencies_ms),
            num_answered=num_answered,
            errors=dict(errors),
            p50_ms=percentile(latencies_ms, 0.50),
            p90_ms=percentile(latencies_ms, 0.90),
            p99_ms=percentile(latencies_ms, 0.99),
            client_cpu_seconds=client_cpu_seconds,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadResult:
        """Read what `to_json` wrote."""
        fields = {key: item for key, item in value.items() if key != "requests_per_second"}
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the rate, ready for json.dumps."""
        return {"requests_per_second": self.requests_per_second, **asdict(self)}

    @property
    def requests_per_second(self) -> float:
        """Rate of successful requests."""
        return self.num_ok / self.seconds

    @property
    def num_errors(self) -> int:
        """Requests with any outcome but 200."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """The blocks of one side: medians over its rounds, and every error."""

    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over stock, block by block in the order they were run: a ratio of neighbours shares the machine's mood."""

    median: float
    low: float
    high: float


def summarize(blocks: Sequence[LoadResult]) -> Summary:
    """Return the medians over `blocks` (at least one) and the sum of their errors."""
    errors: dict[str, int] = {}
    for block in blocks:
        for name, count in block.errors.items():
            errors[name] = errors.get(name, 0) + count
    return Summary(
        requests_per_second=statistics.median(block.requests_per_second for block in blocks),
        p50_ms=_median([block.p50_ms for block in blocks]),
        p99_ms=_median([block.p99_ms for block in blocks]),
        errors=errors,
    )


def ratio(numerators: Sequence[LoadResult], denominators: Sequence[LoadResult]) -> Ratio | None:
    """Return the rates of `numerators` over those of the same round; None if some denominator answered nothing."""
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} blocks against {len(denominators)}; a ratio needs pairs")
    if not numerators or any(block.num_ok == 0 for block in denominators):
        return None
    ratios = [a.requests_per_second / b.requests_per_second for a, b in zip(numerators, denominators, strict=True)]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
