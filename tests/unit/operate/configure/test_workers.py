from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.operate.configure.workers import share_by_weight
from ts_handlers.operate.memory import MemoryBudget

weights = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("total", "given_weights", "expected"),
    [
        (2, [1], (2,)),
        (5, [1, 1], (3, 2)),
        (8, [1, 1, 1], (3, 3, 2)),
        (4, [3, 1], (3, 1)),
        (7, [2, 1], (5, 2)),
        (10, [100, 1, 1], (8, 1, 1)),
        (2, [1, 1, 1], (1, 1, 1)),
        (0, [1, 5], (1, 1)),
    ],
)
def test_workers_follow_the_weights(total: int, given_weights: list[float], expected: tuple[int, ...]) -> None:
    assert share_by_weight(total, given_weights) == expected


@given(st.integers(0, 600), weights)
def test_everything_is_shared_and_each_has_one(total: int, given_weights: list[float]) -> None:
    shares = share_by_weight(total, given_weights)

    assert sum(shares) == max(total, len(given_weights))
    assert min(shares) >= 1


@given(st.integers(0, 600), weights)
def test_none_gets_a_whole_worker_more_than_its_part_unless_it_is_its_first(
    total: int, given_weights: list[float]
) -> None:
    shares = share_by_weight(total, given_weights)

    for share, weight in zip(shares, given_weights, strict=True):
        part = total * weight / sum(given_weights)
        assert share == 1 or share <= math.floor(part) + 1


@given(st.integers(0, 600), weights)
def test_a_heavier_model_never_gets_less(total: int, given_weights: list[float]) -> None:
    pairs = sorted(zip(given_weights, share_by_weight(total, given_weights), strict=True))

    for (light, few), (heavy, many) in itertools.pairwise(pairs):
        assert light == heavy or few <= many


def test_memory_is_what_is_left_beside_the_frontend_and_the_head_room() -> None:
    memory = MemoryBudget(limit_mb=4000)

    assert memory.usable_mb == pytest.approx(4000 * 0.9 - 500 - 256)
