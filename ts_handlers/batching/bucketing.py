"""Lengths and sizes -> batches. Pure functions: what shares a model call, and to what length or size each call is padded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ts_handlers.errors import ConfigError
from ts_handlers.shapes import Size


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One model call.

    Attributes:
        indices: Which sequences, or images, are in it, shortest first.
        padded_length: Length each sequence is padded to, in tokens; 0 for images.
        num_fillers: Copies of the last one, so that the call has a shape with a graph of its own.
        padded_size: Size each image is padded to; None for sequences.
    """

    indices: tuple[int, ...]
    padded_length: int = 0
    num_fillers: int = 0
    padded_size: Size | None = None

    @property
    def batch_size(self) -> int:
        """First axis of the call's arrays, the copies included."""
        return len(self.indices) + self.num_fillers

    @property
    def num_positions(self) -> int:
        """Tokens, or pixels, of the call, padding included."""
        height, width = self.padded_size or (1, self.padded_length)
        return self.batch_size * height * width


def plan_batches(
    lengths: Sequence[int],
    *,
    max_batch_size: int,
    max_padded_tokens: int,
    boundaries: Sequence[int] = (),
    call_overhead_tokens: float = 0.0,
    group_sizes: Sequence[int] = (),
) -> list[BatchPlan]:
    """Group sequences so that the calls cost least, counting each call as its padded tokens plus a fixed overhead.

    Sorted by length, an optimal grouping is made of runs, so the cheapest one is found by dynamic programming over the
    ends of runs, O(len(lengths) * max_batch_size).

    Args:
        lengths: Tokens of each sequence.
        max_batch_size: Most sequences in one call.
        max_padded_tokens: Most tokens in one call, padding included; a longer single sequence gets a call of its own.
        boundaries: Ascending lengths to pad to; a sequence past the last is padded to its own length.
        call_overhead_tokens: Cost of a call, in tokens.
        group_sizes: Ascending batch sizes to fill calls up to, within the boundaries; past the last of either, and past
            max_padded_tokens, a call is not filled.

    Returns:
        Calls in ascending order of length; every index of `lengths` is in exactly one.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [pad_length(lengths[index], boundaries) for index in order]
    fills = group_sizes if boundaries else ()
    best = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        length = padded[end - 1]
        sizes = fills if fills and length <= boundaries[-1] else ()
        for start in range(end - 1, max(-1, end - 1 - max_batch_size), -1):
            size = end - start
            if size > 1 and size * length > max_padded_tokens:
                break
            cost = best[start] + _batch_size(size, length, sizes, max_padded_tokens) * length + call_overhead_tokens
            if cost < best[end]:
                best[end], start_of[end] = cost, start
    plans = []
    end = len(order)
    while end:
        start = start_of[end]
        size, length = end - start, padded[end - 1]
        sizes = fills if fills and length <= boundaries[-1] else ()
        batch_size = _batch_size(size, length, sizes, max_padded_tokens)
        plans.append(BatchPlan(tuple(order[start:end]), length, batch_size - size))
        end = start
    return plans[::-1]


def _batch_size(size: int, length: int, group_sizes: Sequence[int], max_padded_tokens: int) -> int:
    filled = pad_length(size, group_sizes)
    return filled if filled * length <= max_padded_tokens else size


def plan_images(
    sizes: Sequence[Size],
    *,
    max_batch_size: int,
    max_padded_pixels: int,
    can_pad: bool = False,
    call_overhead_pixels: float = 0.0,
) -> list[BatchPlan]:
    """Group images for as few calls as pays.

    Images of one size share calls. Where the model takes a mask of what is padding, others may share one, too: sorted by
    their shape, from wide to tall, runs are formed as `plan_batches` forms them; the best grouping of runs, not of all.

    Args:
        sizes: Of each image.
        max_batch_size: Most images in one call.
        max_padded_pixels: Most pixels in one call, padding included; a larger single image gets a call of its own.
        can_pad: Whether images of different sizes may share a call.
        call_overhead_pixels: Cost of a call, in pixels.

    Returns:
        Calls; every index of `sizes` is in exactly one.
    """
    order = sorted(range(len(sizes)), key=lambda index: (sizes[index][0] / sizes[index][1], sizes[index]))
    best = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        last = sizes[order[end - 1]]
        height, width = last
        for start in range(end - 1, max(-1, end - 1 - max_batch_size), -1):
            size = sizes[order[start]]
            height, width = max(height, size[0]), max(width, size[1])
            pixels = (end - start) * height * width
            if end - start > 1 and (pixels > max_padded_pixels or (size != last and not can_pad)):
                break
            cost = best[start] + pixels + call_overhead_pixels
            if cost <= best[end]:  # of equal cost the larger call
                best[end], start_of[end] = cost, start
    plans = []
    end = len(order)
    while end:
        start = start_of[end]
        indices = tuple(order[start:end])
        height, width = (max(sizes[index][axis] for index in indices) for axis in (0, 1))
        plans.append(BatchPlan(indices, padded_size=(height, width)))
        end = start
    return plans[::-1]


def fixed_shapes(
    boundaries: Sequence[int], group_sizes: Sequence[int], max_padded_tokens: int
) -> list[tuple[int, int]]:
    """Return the (batch size, padded length) of calls that are padded and filled; none where either is open."""
    return [(size, length) for length in boundaries for size in group_sizes if size * length <= max_padded_tokens]


def calls_side_by_side(num_sequences: int, max_batch_size: int, max_parallel: int) -> int:
    """Return the most sequences of a call, so that calls made at the same time take about equally long.

    Two calls for each thread: with one, the thread that gets the longest sequences would still compute when the others
    are done.
    """
    if max_parallel < 2:
        return max_batch_size
    return max(1, min(max_batch_size, -(-num_sequences // (2 * max_parallel))))


def pad_length(length: int, boundaries: Sequence[int] = ()) -> int:
    """Return the smallest boundary that holds `length`, or `length` itself past the last one."""
    position = bisect_left(boundaries, length)
    return boundaries[position] if position < len(boundaries) else length


def check_group_sizes(group_sizes: Sequence[int]) -> None:
    """Refuse group sizes that are not ascending.

    Raises:
        ConfigError: They are not usable.
    """
    if any(left >= right for left, right in pairwise(group_sizes)):
        raise ConfigError(f"handler.bucketing.group_sizes is {list(group_sizes)}; list each size once, ascending")


def check_boundaries(boundaries: Sequence[int], max_length: int | None) -> None:
    """Refuse boundaries that are not ascending or lie past the model's maximum.

    Raises:
        ConfigError: They are not usable.
    """
    if any(left >= right for left, right in pairwise(boundaries)):
        raise ConfigError(f"handler.bucketing.boundaries is {list(boundaries)}; list each length once, ascending")
    if boundaries and max_length is not None and boundaries[-1] > max_length:
        raise ConfigError(
            f"handler.bucketing.boundaries ends at {boundaries[-1]}, past max_length {max_length}; remove what is longer"
        )
