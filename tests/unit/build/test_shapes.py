"""Which shapes get graphs: against every choice there is, tried one by one."""

from __future__ import annotations

from itertools import combinations

import pytest

from ts_handlers.build.shapes import STEP, CallCosts, choose_boundaries, choose_shapes

LENGTHS = (5, 9, 12, 14, 17, 17, 20, 23, 26, 31, 33, 40, 41, 57, 63, 90)


def costs(open_ms_per_token: float = 0.15, call_ms: float = 0.4) -> CallCosts:
    """Return calls that cost something each, and a tenth of a millisecond a token."""
    lengths = (8, 32, 96)
    fixed = {rows: tuple(call_ms + 0.1 * rows * length for length in lengths) for rows in (1, 2, 4, 8)}
    return CallCosts(lengths, fixed, tuple(2 * call_ms + open_ms_per_token * length for length in lengths))


def cost_of(boundaries: tuple[int, ...], found: CallCosts) -> float:
    """Return what the texts cost one by one, each at the smallest boundary that holds it."""
    total = 0.0
    for length in LENGTHS:
        holds = [boundary for boundary in boundaries if boundary >= length]
        total += found.of_fixed(1, min(holds)) if holds else found.of_open(1, length)
    return total


@pytest.mark.parametrize("open_ms_per_token", [0.05, 0.12, 0.15, 0.4])
def test_boundaries_are_the_best_of_their_number(open_ms_per_token: float) -> None:
    found = costs(open_ms_per_token)
    candidates = sorted({-(-length // STEP) * STEP for length in LENGTHS})
    for number, boundaries in enumerate(choose_boundaries(LENGTHS, found, 1, 4), 1):
        assert len(boundaries) == number
        least = min(cost_of(choice, found) for choice in combinations(candidates, number))
        assert cost_of(boundaries, found) == pytest.approx(least)


def test_no_more_boundaries_than_lengths() -> None:
    assert choose_boundaries((3, 5, 8), costs(), 1, 5) == [(8,)]
    assert choose_boundaries((3, 12), costs(), 1, 5) == [(8,), (8, 16)]


def test_costs_between_and_past_what_was_measured() -> None:
    found = CallCosts((8, 16), {1: (1.0, 2.0), 4: (3.0, 3.0)}, (2.0, 3.0))
    assert found.of_fixed(1, 12) == pytest.approx(1.5)
    assert found.of_fixed(1, 32) == pytest.approx(4.0)
    assert found.of_fixed(1, 4) == pytest.approx(1.0)
    assert found.of_fixed(4, 100) == pytest.approx(3.0)
    assert found.of_open(3, 16) == pytest.approx(9.0)
    assert CallCosts((8,), {1: (1.0,)}, (2.0,)).of_fixed(1, 100) == pytest.approx(1.0)


def test_overhead_is_what_a_call_of_no_length_costs() -> None:
    assert costs(call_ms=0.4).overhead_tokens() == pytest.approx(4.0)
    assert CallCosts((8,), {1: (1.0,)}, (2.0,)).overhead_tokens() == 0
    assert CallCosts((8, 16), {1: (2.0, 1.0)}, (2.0, 2.0)).overhead_tokens() == 0


def test_memory_bounds_the_number_of_graphs() -> None:
    for most in range(1, 12):
        shapes = choose_shapes(LENGTHS, costs(), most)
        assert 1 <= len(shapes.boundaries) * len(shapes.group_sizes) <= most
        assert shapes.group_sizes[0] == 1
    assert choose_shapes(LENGTHS, costs(), 0).boundaries == ()


def test_more_graphs_are_taken_only_where_they_save_time() -> None:
    flat = CallCosts((8, 96), {rows: (1.0 * rows, 1.0 * rows) for rows in (1, 2, 4, 8)}, (1.5, 1.5))
    assert choose_shapes(LENGTHS, flat, 20).boundaries == (96,)
    steep = CallCosts((8, 96), {1: (0.8, 9.6)}, (5.0, 50.0))
    assert len(choose_shapes(LENGTHS, steep, 20).boundaries) > 4


def test_groups_are_taken_where_calls_are_dear() -> None:
    assert choose_shapes(LENGTHS, costs(call_ms=5.0), 24).group_sizes[-1] == 8
    assert choose_shapes(LENGTHS, costs(call_ms=0.0), 24).group_sizes == (1,)
