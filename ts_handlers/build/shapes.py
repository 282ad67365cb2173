"""Which shapes get graphs of their own: few boundaries, for the lengths of real texts, by what calls were measured to cost.

A boundary nearer to a text's length saves padding, and every boundary costs a graph's memory. The best K boundaries are
found by dynamic programming over the lengths: the cheapest way to cover the texts up to one boundary with k graphs extends
the cheapest way to cover those up to a smaller one with k - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ts_handlers.bucketing import plan_batches

STEP = 8
"""Boundaries are multiples of it: kernels work on so many columns at once."""

GROUP_SIZES: tuple[tuple[int, ...], ...] = ((1,), (1, 2), (1, 4), (1, 2, 4), (1, 8), (1, 4, 8))
"""Numbers of rows to choose from; a lone request is always one of them."""

BATCH = 8
"""Texts of a batch as a worker gets it."""

WORTH = 0.01
"""Part of the time that one more graph must save."""


@dataclass(frozen=True, slots=True)
class CallCosts:
    """What calls were measured to cost, in milliseconds.

    Attributes:
        lengths: Lengths that were measured, ascending.
        fixed: Rows -> cost of a call at each length, in a graph of that shape.
        open: Cost of a call of one row at each length, in the graph for any shape.
    """

    lengths: tuple[int, ...]
    fixed: Mapping[int, tuple[float, ...]]
    open: tuple[float, ...]

    def of_fixed(self, rows: int, length: int) -> float:
        """Return the cost in a graph of its own; between measured lengths on a line, past the last on the same line."""
        return self._at(length, self.fixed[rows])

    def of_open(self, rows: int, length: int) -> float:
        """Return the cost in the graph for any shape."""
        return rows * self._at(length, self.open)

    def overhead_tokens(self) -> float:
        """Return what a call costs whatever its length, in the time of so many tokens: a line through what was measured."""
        costs = self.fixed[1]
        if len(self.lengths) < 2:
            return 0.0
        slope, offset = np.polyfit(self.lengths, costs, 1)
        return float(max(0.0, round(offset / slope, 1))) if slope > 0 else 0.0

    def _at(self, length: int, costs: Sequence[float]) -> float:
        if length > self.lengths[-1] and len(self.lengths) > 1:
            slope = (costs[-1] - costs[-2]) / (self.lengths[-1] - self.lengths[-2])
            return costs[-1] + max(0.0, slope) * (length - self.lengths[-1])
        return float(np.interp(length, self.lengths, costs))


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes with a graph of their own.

    Attributes:
        boundaries: Lengths that texts are padded to; longer ones go through the graph for any shape.
        group_sizes: Rows that calls are filled up to.
        ms_per_text: What a text costs with them.
    """

    boundaries: tuple[int, ...]
    group_sizes: tuple[int, ...]
    ms_per_text: float


@dataclass(frozen=True, slots=True)
class ShapeLimits:
    """What a worker makes no larger.

    Attributes:
        max_length: Tokens of a text; no boundary is past it.
        max_padded_tokens: Tokens of a call of several texts.
    """

    max_length: int = 2**31
    max_padded_tokens: int = 2**31


def choose_shapes(
    lengths: Sequence[int], costs: CallCosts, most_graphs: int, limits: ShapeLimits = ShapeLimits()
) -> Shapes:
    """Choose boundaries and group sizes.

    Args:
        lengths: Tokens of typical texts, in the order they come.
        costs: What calls cost.
        most_graphs: Most graphs that there is memory for.
        limits: What a worker makes no larger.
    """
    found = list(_options(lengths, costs, most_graphs, limits))
    if not found:
        return Shapes((), (), 0.0)
    best = min(shapes.ms_per_text for shapes in found)
    near = [shapes for shapes in found if shapes.ms_per_text <= best * (1 + WORTH)]
    return min(near, key=lambda shapes: (len(shapes.boundaries) * len(shapes.group_sizes), shapes.ms_per_text))


def choose_boundaries(
    lengths: Sequence[int], costs: CallCosts, rows: int, most: int, max_length: int = 2**31
) -> list[tuple[int, ...]]:
    """Return the best boundaries of each number from one to `most`, for texts in calls of so many rows.

    Longer texts than the last boundary are left to the graph for any shape, where that is cheaper.
    """
    candidates = sorted({min(-(-length // STEP) * STEP, max_length) for length in lengths})
    sorted_lengths = np.sort(np.asarray(lengths))
    below = [int(np.searchsorted(sorted_lengths, candidate, side="right")) for candidate in candidates]
    per_text = [costs.of_fixed(rows, candidate) / rows for candidate in candidates]
    past = [sum(costs.of_open(1, int(length)) for length in sorted_lengths[count:]) for count in below]
    cost = [count * price for count, price in zip(below, per_text, strict=True)]
    chains: list[tuple[int, ...]] = [(index,) for index in range(len(candidates))]
    found = [_cheapest(cost, past, chains, candidates)]
    for _ in range(1, min(most, len(candidates))):
        cost, chains = _with_one_more(cost, chains, below, per_text)
        found.append(_cheapest(cost, past, chains, candidates))
    return found


def _with_one_more(
    cost: Sequence[float], chains: Sequence[tuple[int, ...]], below: Sequence[int], per_text: Sequence[float]
) -> tuple[list[float], list[tuple[int, ...]]]:
    """Extend the cheapest covers by one boundary: the texts past an earlier last boundary pay for the new one."""
    next_cost, next_chains = [], []
    for end, price in enumerate(per_text):
        choices = [(cost[start] + (below[end] - below[start]) * price, start) for start in range(end)]
        least, start = min(choices, default=(float("inf"), -1))
        next_cost.append(least)
        next_chains.append((*chains[start], end) if start >= 0 else ())
    return next_cost, next_chains


def _cheapest(
    cost: Sequence[float], past: Sequence[float], chains: Sequence[tuple[int, ...]], candidates: Sequence[int]
) -> tuple[int, ...]:
    end = min(range(len(cost)), key=lambda index: cost[index] + past[index])
    return tuple(candidates[index] for index in chains[end])


def _options(lengths: Sequence[int], costs: CallCosts, most_graphs: int, limits: ShapeLimits) -> Iterator[Shapes]:
    for group_sizes in GROUP_SIZES:
        if any(rows not in costs.fixed for rows in group_sizes):
            continue
        most = most_graphs // len(group_sizes)
        if most:
            for boundaries in choose_boundaries(lengths, costs, group_sizes[-1], most, limits.max_length):
                yield Shapes(boundaries, group_sizes, _replay(lengths, costs, boundaries, group_sizes, limits))


def _replay(
    lengths: Sequence[int],
    costs: CallCosts,
    boundaries: Sequence[int],
    group_sizes: Sequence[int],
    limits: ShapeLimits,
) -> float:
    """Return the milliseconds a text, in batches planned as a worker plans them."""
    total = 0.0
    for start in range(0, len(lengths), BATCH):
        plans = plan_batches(
            lengths[start : start + BATCH],
            max_batch_size=group_sizes[-1],
            max_padded_tokens=limits.max_padded_tokens,
            boundaries=boundaries,
            call_overhead_tokens=costs.overhead_tokens(),
            group_sizes=group_sizes,
        )
        for plan in plans:
            is_fixed = plan.padded_length in boundaries and plan.num_rows in group_sizes
            total += (costs.of_fixed if is_fixed else costs.of_open)(plan.num_rows, plan.padded_length)
    return total / len(lengths)
