from __future__ import annotations

import math

import pytest

from ts_handlers.operate.tune.objective import Measurement, Objective, judge, mean


def measured(rate: float, p99_ms: float = 50.0, *, errors: dict[str, int] | None = None) -> Measurement:
    return Measurement(rate, p99_ms / 3, p99_ms / 2, p99_ms, num_ok=100, errors=errors or {})


def test_without_a_bound_the_most_requests_win() -> None:
    objective = Objective()
    assert objective.score(measured(20, 900)) > objective.score(measured(10, 1))
    assert objective.describe() == "the most requests per second"


def test_with_a_bound_whoever_meets_it_comes_first_then_the_lowest_p99() -> None:
    objective = Objective(slo_p99_ms=100)
    best_first = [measured(10, 100), measured(9, 20), measured(50, 101), measured(90, 300)]
    assert sorted(best_first, key=objective.score, reverse=True) == best_first
    assert objective.describe() == "the most requests per second with a p99 of at most 100 ms"


def test_at_a_rate_the_lowest_p99_wins_among_those_that_keep_up() -> None:
    objective = Objective(rate=100)
    best_first = [measured(99, 10), measured(100, 20), measured(90, 5), measured(50, 1)]
    assert sorted(best_first, key=objective.score, reverse=True) == best_first


def test_at_a_rate_with_a_bound_a_late_server_still_beats_one_that_falls_behind() -> None:
    objective = Objective(slo_p99_ms=15, rate=100)
    best_first = [measured(99, 10), measured(100, 20), measured(100, 30), measured(90, 5)]
    assert sorted(best_first, key=objective.score, reverse=True) == best_first


def test_a_clear_gain_is_chosen() -> None:
    verdict = judge(Objective(), [measured(110), measured(112)], [measured(100), measured(102)])
    assert verdict.is_better
    assert verdict.gain == pytest.approx(111 / 101)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ([110, 101], [100, 102], "within noise"),  # blocks overlap
        ([102, 102], [100, 100], "within noise"),  # apart, but by less than what is worth it
        ([90, 91], [100, 102], "not beaten"),
    ],
)
def test_else_the_default_is_kept(ours: list[float], theirs: list[float], reason: str) -> None:
    verdict = judge(Objective(), [*map(measured, ours)], [*map(measured, theirs)])
    assert not verdict.is_better
    assert verdict.is_met
    assert reason in verdict.reason


def test_whoever_alone_meets_the_bound_is_chosen() -> None:
    fast, quick = [measured(200, 150), measured(200, 140)], [measured(100, 80), measured(100, 90)]
    assert judge(Objective(slo_p99_ms=100), quick, fast).is_better
    assert not judge(Objective(slo_p99_ms=100), fast, quick).is_better

    assert judge(Objective(slo_p99_ms=100), quick, fast).gain is None
    assert judge(Objective(slo_p99_ms=100), fast, quick).describe_gain() is None


def test_a_bound_met_on_average_only_is_told_from_noise_like_any_gain() -> None:
    objective = Objective(slo_p99_ms=100)
    half, late = [measured(100, 70), measured(100, 120)], [measured(100, 95), measured(100, 110)]
    verdict = judge(objective, half, late)  # means of 95 and 102.5 ms, each with a block on either side of the bound
    assert not verdict.is_better
    assert not verdict.is_met
    met = [measured(100, 80), measured(100, 80)]
    assert not judge(objective, met, half).is_better  # one block of the default does as well
    more = [measured(120, 80), measured(120, 80)]
    assert judge(objective, more, half).is_better


def test_the_gain_is_named_by_what_it_is_of() -> None:
    requests = judge(Objective(), [measured(150), measured(150)], [measured(100), measured(100)])
    assert requests.describe_gain() == "1.50 times the requests per second"
    p99 = judge(Objective(rate=100), [measured(100, 20)] * 2, [measured(100, 50)] * 2)
    assert p99.describe_gain() == "2.50 times as low a p99"


def test_where_nobody_meets_the_bound_the_lower_p99_is_chosen_and_it_is_said() -> None:
    verdict = judge(
        Objective(slo_p99_ms=10), [measured(50, 40), measured(50, 41)], [measured(90, 80), measured(90, 82)]
    )
    assert verdict.is_better
    assert not verdict.is_met
    assert verdict.gain == pytest.approx(2.0)


def test_at_a_rate_the_gain_is_of_the_p99_if_both_keep_up_else_of_the_requests() -> None:
    assert Objective(rate=100).gain(measured(100, 10), measured(100, 30)) == pytest.approx(3)
    assert Objective(rate=100).gain(measured(100, 10), measured(50, 30)) == pytest.approx(2)
    assert Objective(rate=100).gain(measured(100, 0), measured(100, 0)) == 1
    assert Objective().gain(measured(100), measured(0)) == math.inf


def test_blocks_are_averaged_and_their_errors_added() -> None:
    both = mean([measured(10, 30, errors={"503": 1}), measured(20, 60, errors={"503": 2, "400": 1})])
    assert (both.requests_per_second, both.p99_ms, both.num_ok) == (15, 45, 200)
    assert both.errors == {"503": 3, "400": 1}
    assert both.error_share == pytest.approx(4 / 204)
    assert Measurement(0, 0, 0, 0, num_ok=0).error_share == 1
