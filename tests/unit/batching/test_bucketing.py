from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.batching.bucketing import (
    BatchPlan,
    calls_side_by_side,
    check_boundaries,
    check_group_sizes,
    pad_length,
    plan_batches,
    plan_images,
)
from ts_handlers.errors import ConfigError

LENGTHS = st.lists(st.integers(1, 300), max_size=40)


@given(
    lengths=LENGTHS,
    max_batch_size=st.integers(1, 9),
    max_padded_tokens=st.integers(1, 600),
    boundaries=st.lists(st.integers(1, 256), max_size=4, unique=True).map(sorted),
    overhead=st.floats(0, 64),
    group_sizes=st.lists(st.integers(1, 12), max_size=3, unique=True).map(sorted),
)
def test_every_sequence_runs_once_within_the_caps(
    lengths: list[int],
    max_batch_size: int,
    max_padded_tokens: int,
    boundaries: list[int],
    overhead: float,
    group_sizes: list[int],
) -> None:
    plans = plan_batches(
        lengths,
        max_batch_size=max_batch_size,
        max_padded_tokens=max_padded_tokens,
        boundaries=boundaries,
        call_overhead_tokens=overhead,
        group_sizes=group_sizes,
    )
    assert sorted(index for plan in plans for index in plan.indices) == list(range(len(lengths)))
    for plan in plans:
        assert len(plan.indices) <= max_batch_size
        assert plan.padded_length == pad_length(max(lengths[index] for index in plan.indices), boundaries)
        assert len(plan.indices) == 1 or plan.num_positions <= max_padded_tokens
        assert plan.batch_size in (len(plan.indices), pad_length(len(plan.indices), group_sizes))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=7), overhead=st.integers(0, 40))
def test_no_grouping_is_cheaper(lengths: list[int], overhead: int) -> None:
    plans = plan_batches(lengths, max_batch_size=4, max_padded_tokens=120, call_overhead_tokens=overhead)
    cost = sum(plan.num_positions + overhead for plan in plans)
    ordered = sorted(lengths)
    cheapest = min(
        sum((stop - start) * ordered[stop - 1] + overhead for start, stop in itertools.pairwise(cuts))
        for size in range(len(lengths))
        for inner in itertools.combinations(range(1, len(lengths)), size)
        for cuts in [(0, *inner, len(lengths))]
        if all(
            stop - start == 1 or (stop - start <= 4 and (stop - start) * ordered[stop - 1] <= 120)
            for start, stop in itertools.pairwise(cuts)
        )
    )
    assert cost == cheapest


def test_a_long_text_does_not_stretch_the_short_ones() -> None:
    plans = plan_batches([200, 5, 6, 7], max_batch_size=8, max_padded_tokens=4096, call_overhead_tokens=8)
    assert plans == [BatchPlan((1, 2, 3), 7), BatchPlan((0,), 200)]


def test_an_expensive_call_is_shared() -> None:
    plans = plan_batches([200, 150], max_batch_size=8, max_padded_tokens=4096, call_overhead_tokens=100)
    assert plans == [BatchPlan((1, 0), 200)]


def test_a_sequence_over_the_cap_runs_alone() -> None:
    assert plan_batches([900, 3], max_batch_size=8, max_padded_tokens=512) == [BatchPlan((1,), 3), BatchPlan((0,), 900)]


def test_calls_are_filled_up_to_a_group_size_where_that_costs_less() -> None:
    def plan(call_overhead_tokens: float) -> list[BatchPlan]:
        return plan_batches(
            [8, 8, 8],
            max_batch_size=4,
            max_padded_tokens=512,
            boundaries=(8,),
            group_sizes=(1, 4),
            call_overhead_tokens=call_overhead_tokens,
        )

    assert plan(9) == [BatchPlan((0, 1, 2), 8, num_fillers=1)]
    assert plan(1) == [BatchPlan((index,), 8) for index in range(3)]


def test_a_call_is_not_filled_past_the_cap() -> None:
    def plan(lengths: list[int], max_padded_tokens: int) -> list[BatchPlan]:
        return plan_batches(
            lengths,
            max_batch_size=4,
            max_padded_tokens=max_padded_tokens,
            boundaries=(8,),
            group_sizes=(4,),
            call_overhead_tokens=100,
        )

    [unfilled] = plan([8, 8, 8], 24)
    assert (unfilled.batch_size, unfilled.num_positions) == (3, 24)
    [filled, past] = plan([8, 8, 8, 30, 30], 96)
    assert (filled.batch_size, past.batch_size, past.padded_length) == (4, 2, 30)


def test_group_sizes_ascend() -> None:
    check_group_sizes((1, 4))
    with pytest.raises(ConfigError, match=r"group_sizes is \[4, 1\]; list each size once, ascending"):
        check_group_sizes((4, 1))


@pytest.mark.parametrize(("length", "padded"), [(1, 8), (8, 8), (9, 32), (33, 33)])
def test_pad_length(length: int, padded: int) -> None:
    assert pad_length(length, (8, 32)) == padded


@pytest.mark.parametrize("boundaries", [(8, 8), (16, 8), (8, 600)])
def test_unusable_boundaries_are_refused(boundaries: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"handler\.bucketing\.boundaries"):
        check_boundaries(boundaries, 512)


@pytest.mark.parametrize(
    ("num_sequences", "max_batch_size", "max_parallel", "expected"),
    [(8, 8, 1, 8), (100, 8, 1, 8), (8, 8, 2, 2), (9, 8, 2, 3), (1, 8, 4, 1), (0, 8, 4, 1), (64, 8, 2, 8), (3, 8, 2, 1)],
)
def test_two_calls_for_each_thread(num_sequences: int, max_batch_size: int, max_parallel: int, expected: int) -> None:
    assert calls_side_by_side(num_sequences, max_batch_size, max_parallel) == expected


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=12)


@given(
    sizes=SIZES,
    max_batch_size=st.integers(1, 5),
    max_padded_pixels=st.integers(1, 4000),
    can_pad=st.booleans(),
    overhead=st.floats(0, 500),
)
def test_every_image_runs_once_within_the_caps(
    sizes: list[tuple[int, int]], max_batch_size: int, max_padded_pixels: int, can_pad: bool, overhead: float
) -> None:
    plans = plan_images(
        sizes,
        max_batch_size=max_batch_size,
        max_padded_pixels=max_padded_pixels,
        can_pad=can_pad,
        call_overhead_pixels=overhead,
    )
    assert sorted(index for plan in plans for index in plan.indices) == list(range(len(sizes)))
    for plan in plans:
        assert len(plan.indices) <= max_batch_size
        heights, widths = zip(*(sizes[index] for index in plan.indices), strict=True)
        assert plan.padded_size == (max(heights), max(widths))
        assert plan.padded_size == (max(heights), max(widths))
        assert len(plan.indices) == 1 or plan.num_positions <= max_padded_pixels
        assert can_pad or len({sizes[index] for index in plan.indices}) == 1


def test_images_of_one_size_share_calls() -> None:
    sizes = [(4, 6), (6, 4), (4, 6), (6, 4), (4, 6)]
    plans = plan_images(sizes, max_batch_size=8, max_padded_pixels=1000)
    assert [(sorted(plan.indices), plan.padded_size) for plan in plans] == [([0, 2, 4], (4, 6)), ([1, 3], (6, 4))]


def test_images_are_padded_where_another_call_costs_more() -> None:
    sizes = [(10, 10), (40, 10), (10, 12)]

    def plan(overhead: float) -> list[list[int]]:
        plans = plan_images(
            sizes, max_batch_size=8, max_padded_pixels=10_000, can_pad=True, call_overhead_pixels=overhead
        )
        return sorted(sorted(plan.indices) for plan in plans)

    assert plan(0) == [[0], [1], [2]]
    assert plan(50) == [[0, 2], [1]]
    assert plan(10_000) == [[0, 1, 2]]
