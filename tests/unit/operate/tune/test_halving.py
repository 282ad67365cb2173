from __future__ import annotations

import pytest

from ts_handlers.operate.tune.halving import (
    MAX_MEASURED_S,
    TimePlan,
    fit_plan,
    make_plan,
    rank,
    shrink,
    stretch,
    survivors,
)
from ts_handlers.operate.tune.objective import Measurement, Objective
from ts_handlers.operate.tune.space import Setting

SETTINGS = [Setting(workers, 1, 8, 1) for workers in range(1, 9)]


def shape(plan: TimePlan) -> list[tuple[int, float]]:
    return [(rung.num_settings, rung.seconds) for rung in plan.rungs]


@pytest.mark.parametrize(
    ("count", "rungs", "final_s"),
    [
        (2, [(2, 5)], 5),
        (6, [(6, 5)], 5),  # a third of them is two: that is the final
        (12, [(12, 5), (4, 15)], 15),
        (27, [(27, 5), (9, 15), (3, 45)], 45),
        (81, [(81, 5), (27, 15), (9, 45), (3, 60)], 60),
    ],
)
def test_each_rung_has_a_third_of_the_settings_and_three_times_the_seconds(
    count: int, rungs: list[tuple[int, float]], final_s: float
) -> None:
    plan = make_plan(count, 5)
    assert shape(plan) == rungs
    assert plan.final_s == final_s <= MAX_MEASURED_S


def test_the_cost_counts_every_server() -> None:
    plan = make_plan(12, 5)
    assert plan.num_trials == 12 + 4 + 4
    assert plan.cost_s(10) == 12 * 15 + 4 * 25 + 4 * 25
    assert plan.after(0).cost_s(10) == 4 * 25 + 4 * 25


@pytest.mark.parametrize("available_s", [150, 300, 600, 1800, 7200])
def test_the_fitted_plan_is_the_largest_that_fits(available_s: float) -> None:
    plan = fit_plan(100, 5, 15, available_s)
    assert plan is not None
    assert plan.cost_s(15) <= available_s
    count = plan.rungs[0].num_settings
    assert count == 100 or make_plan(count + 1, 5).cost_s(15) > available_s


def test_too_little_time_gives_no_plan() -> None:
    assert fit_plan(100, 5, 15, 100) is None


@pytest.mark.parametrize("available_s", [0, 100, 250, 350, 500, 1000])
def test_a_shrunk_plan_fits_or_is_the_least(available_s: float) -> None:
    plan = shrink(make_plan(27, 5).after(0), 15, available_s, 5)
    assert plan.cost_s(15) <= max(available_s, 4 * 20)
    assert plan.final_s >= 5


def test_a_plan_that_fits_is_left_alone() -> None:
    plan = make_plan(27, 5)
    assert shrink(plan, 15, plan.cost_s(15), 5) == plan


@pytest.mark.parametrize(("available_s", "final_s"), [(0, 15), (4 * 35, 20), (4 * 100, 45)])
def test_the_final_takes_what_time_is_left_up_to_three_times_its_plan(available_s: float, final_s: float) -> None:
    assert stretch(TimePlan((), 15), 15, available_s) == final_s
    assert stretch(TimePlan((), 45), 15, 10_000) == MAX_MEASURED_S


def test_the_default_always_goes_on_and_the_count_is_kept() -> None:
    ranked = SETTINGS[:]
    assert survivors(ranked, 3, SETTINGS[7]) == (SETTINGS[7], SETTINGS[0], SETTINGS[1])
    assert survivors(ranked, 3, SETTINGS[0]) == tuple(SETTINGS[:3])
    assert survivors(ranked[1:], 2, SETTINGS[0]) == tuple(SETTINGS[1:3])  # the default failed


def test_the_best_is_ranked_first() -> None:
    measured = [
        (setting, Measurement(rate, 1, 2, 3, 10)) for setting, rate in zip(SETTINGS, (3, 9, 5, 9), strict=False)
    ]
    assert rank(measured, Objective()) == [SETTINGS[1], SETTINGS[3], SETTINGS[2], SETTINGS[0]]
