"""The arithmetic over blocks of load: pure functions and frozen dataclasses, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ts_handlers.operate.load.result import LoadResult


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
    if not numerators or any(block.requests_per_second == 0 for block in denominators):
        return None
    ratios = [a.requests_per_second / b.requests_per_second for a, b in zip(numerators, denominators, strict=True)]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
