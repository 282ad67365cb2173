from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ts_handlers.operate.autoscale.decide import Decision, Limit, Observation, Policy, State, changed, decide

POLICY = Policy(min_workers=1, max_workers=6, target_in_flight=8.0)


def seen(time_s: float, workers: int, in_flight: float, **others: float) -> Observation:
    values = {"ready": workers, "queued": 0.0, "rate": 0.0, "load_time_s": 4.0} | others
    return Observation(time_s=time_s, workers=workers, in_flight=in_flight, **values)  # type: ignore[arg-type]


def step(policy: Policy, state: State, seen: Observation, limit: Limit | None = None) -> tuple[Decision, State]:
    """Decide, and carry a change out at once."""
    decision, state = decide(policy, state, seen, limit)
    return decision, changed(state, seen.time_s) if decision.change else state


def run(
    policy: Policy, demands: list[float], workers: int = 1, limit: Limit | None = None, **others: float
) -> list[Decision]:
    """Decide once a second on so many requests in flight; a change is there at once."""
    state, decisions = State(), []
    for time_s, in_flight in enumerate(demands):
        decision, state = step(policy, state, seen(float(time_s), workers, in_flight, **others), limit)
        workers = decision.workers
        decisions.append(decision)
    return decisions


def workers_of(decisions: list[Decision]) -> list[int]:
    return [decision.workers for decision in decisions]


def test_demand_must_last_half_a_load_time_before_workers_are_added() -> None:
    decisions = run(POLICY, [20.0] * 4)
    assert workers_of(decisions) == [1, 1, 3, 3]
    assert [decision.cause for decision in decisions[:3]] == ["window", "window", "load"]
    assert "pressure was at least 2.50 for 2.0 s" in decisions[2].reason


def test_a_moment_of_calm_starts_the_window_anew() -> None:
    assert workers_of(run(POLICY, [20, 4, 20, 4, 20, 4, 20, 4])) == [1] * 8


def test_workers_go_one_by_one_once_demand_was_low_for_ten_load_times() -> None:
    decisions = run(POLICY, [4.0] * 60, workers=3)
    assert workers_of(decisions)[:40] == [3] * 40
    assert decisions[40].change == -1
    assert decisions[40].cause == "idle"
    assert [decision.workers for decision in decisions[41:48]] == [2] * 7, "8 s of cooldown"
    assert decisions[47].cause == "cooldown"
    assert decisions[48].workers == 1
    assert {decision.workers for decision in decisions[48:]} == {1}


def test_one_busy_second_keeps_the_workers_for_another_window() -> None:
    demands = [4.0] * 30 + [20.0] + [4.0] * 40
    assert workers_of(run(POLICY, demands, workers=3)) == [3] * 71


@pytest.mark.parametrize(("in_flight", "stays"), [(8.7, True), (9.0, False)])
def test_demand_within_the_tolerance_adds_nothing(in_flight: float, *, stays: bool) -> None:
    assert (run(POLICY, [in_flight] * 20)[-1].workers == 1) is stays


def test_a_cleared_queue_does_not_take_the_workers_away_that_cleared_it() -> None:
    """Two workers answer what one could not: in flight there are few, and the rate is what says so."""
    state, workers, now = State(), 1, 0.0
    for _ in range(3):
        decision, state = step(POLICY, state, seen(now, workers, 60.0, queued=52.0, rate=50.0))
        workers, now = decision.workers, now + 1.0
    assert workers == 3
    assert state.capacity == pytest.approx(50.0)
    for _ in range(300):
        decision, state = step(POLICY, state, seen(now, workers, 1.5, rate=70.0))
        workers, now = decision.workers, now + 1.0
    assert workers == 2, "70 requests/s are 1.75 workers of 50 requests/s at 80 %"
    for _ in range(300):
        decision, state = step(POLICY, state, seen(now, workers, 1.5, rate=30.0))
        workers, now = decision.workers, now + 1.0
    assert workers == 1


def test_a_capacity_that_was_learned_too_low_adds_no_worker() -> None:
    state = State(capacity=10.0)
    for time_s in range(60):
        decision, state = decide(POLICY, state, seen(float(time_s), 2, 3.0, rate=100.0))
        assert decision.change == 0, "two workers answer 100 requests/s, and none waits"


def test_capacity_follows_what_saturated_workers_do_and_grows_with_what_idle_ones_do() -> None:
    _, state = decide(POLICY, State(capacity=50.0), seen(0, 2, 40, queued=30.0, rate=60.0))
    assert state.capacity == pytest.approx(50 + 0.3 * (30 - 50))
    _, state = decide(POLICY, State(capacity=50.0), seen(0, 2, 4, rate=120.0))
    assert state.capacity == 60.0
    _, state = decide(POLICY, State(capacity=50.0), seen(0, 2, 4, rate=120.0, failed=40.0))
    assert state.capacity == 50.0, "the queue may have been full between two looks"
    _, state = decide(POLICY, State(), seen(0, 2, 4, rate=120.0))
    assert state.capacity is None, "workers that wait for requests say nothing of what they could do"


def test_latency_over_its_limit_wants_one_more_worker_and_forbids_fewer() -> None:
    slow = replace(POLICY, max_latency_ms=100.0)
    decisions = run(slow, [1.0] * 4, workers=2, latency_ms=150.0)
    assert (decisions[-2].workers, decisions[-2].cause) == (3, "latency")
    assert run(slow, [1.0] * 60, workers=6, latency_ms=150.0)[-1].workers == 6
    assert run(slow, [1.0] * 60, workers=6, latency_ms=50.0)[-1].workers < 6


def test_nothing_changes_while_a_worker_starts() -> None:
    state = State()
    for time_s in range(20):
        decision, state = decide(POLICY, state, seen(float(time_s), 3, 100.0, ready=2))
        assert (decision.change, decision.cause) == (0, "starting")
    assert "1 of 3 workers are not ready yet" in decision.reason


def test_fewer_than_the_minimum_are_brought_up_at_once() -> None:
    decision, _ = decide(replace(POLICY, min_workers=3), State(), seen(0, 0, 0.0))
    assert (decision.workers, decision.cause) == (2, "minimum"), "two at a time"


def test_more_than_the_maximum_are_brought_down_one_by_one() -> None:
    assert workers_of(run(replace(POLICY, max_workers=2), [100.0] * 3, workers=4)) == [3, 2, 2]


def test_a_budget_bounds_what_demand_wants_and_says_so() -> None:
    limit = Limit(2, "2 CPUs, 1 for each worker")
    decisions = run(POLICY, [100.0] * 20, limit=limit)
    assert decisions[-1].workers == 2
    assert decisions[-1].cause == "budget"
    assert "4 wanted, stays: 2 CPUs, 1 for each worker" in decisions[-1].reason


def test_a_budget_goes_before_the_minimum_but_leaves_one_worker() -> None:
    policy = replace(POLICY, min_workers=3)
    decision, _ = decide(policy, State(), seen(0, 3, 0.0), Limit(0, "no memory"))
    assert (decision.workers, decision.cause) == (2, "budget")
    assert workers_of(run(policy, [0.0] * 5, workers=3, limit=Limit(0, "no memory")))[-1] == 1


def test_a_change_that_was_not_made_needs_no_cooldown() -> None:
    state = State()
    for time_s in range(4):
        decision, state = decide(POLICY, state, seen(float(time_s), 1, 20.0))
    assert decision.change == 2
    waits, _ = decide(POLICY, changed(state, 3.0), seen(4.0, 1, 20.0))
    assert (waits.change, waits.cause) == (0, "cooldown")


policies = st.builds(
    lambda least, more, target, tolerance, up, down, step: Policy(
        min_workers=least,
        max_workers=least + more,
        target_in_flight=target,
        tolerance=tolerance,
        up_load_times=up,
        down_load_times=down,
        max_step_up=step,
        max_step_down=step,
    ),
    *(st.integers(1, 3), st.integers(0, 6), st.floats(0.5, 16), st.floats(0, 0.5), st.floats(0, 2), st.floats(1, 12)),
    st.integers(1, 3),
)


traffic = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 500)), min_size=1, max_size=60)


@given(policies, st.integers(0, 12), traffic)
def test_bounds_and_steps_hold_whatever_is_observed(
    policy: Policy, workers: int, traffic: list[tuple[float, float]]
) -> None:
    state = State()
    for time_s, (in_flight, rate) in enumerate(traffic):
        before = workers
        observation = seen(float(time_s), workers, in_flight, rate=rate, queued=in_flight / 2)
        decision, state = step(policy, state, observation)
        workers = decision.workers
        assert decision.change == workers - before
        assert -policy.max_step_down <= decision.change <= policy.max_step_up
        if decision.change > 0:
            assert workers <= policy.max_workers
        if decision.change < 0:
            assert workers >= policy.min_workers


@given(policies, st.lists(st.floats(0, 300), min_size=20, max_size=100))
def test_two_changes_are_a_cooldown_apart(policy: Policy, demands: list[float]) -> None:
    changes = [time_s for time_s, decision in enumerate(run(policy, demands, policy.min_workers)) if decision.change]
    assert all(later - earlier >= 8 for earlier, later in pairwise(changes)), "2 x 4 s"


@settings(max_examples=40)
@given(policies, st.integers(1, 9), st.floats(0, 200))
def test_steady_demand_never_turns_round(policy: Policy, workers: int, in_flight: float) -> None:
    workers = min(workers, policy.max_workers)
    counts = workers_of(run(policy, [in_flight] * 300, workers))
    steps = {(later > earlier) - (later < earlier) for earlier, later in pairwise(counts)}
    assert not {1, -1} <= steps
    assert len(set(counts[250:])) == 1, "it settles"


@pytest.mark.parametrize("rate", [20.0, 45.0, 70.0, 120.0, 190.0])
def test_random_arrivals_of_a_steady_rate_settle(rate: float) -> None:
    """Ten minutes at one rate, after a burst: requests arrive at random, each worker answers 50 a second."""
    arrivals = random.Random(f"{rate}")  # noqa: S311
    state, workers, queue = State(), 1, 0.0
    counts: list[int] = []
    ready_at = 0.0
    for time_s in range(720):
        mean = 300.0 if 60 <= time_s < 120 else rate  # requests per second
        arrived = sum(arrivals.random() < mean / 1000 for _ in range(1000))
        ready = workers if time_s >= ready_at else max(1, counts[-1] - 2)
        answered = min(queue + arrived, 50.0 * ready)
        queue = min(100.0, queue + arrived - answered)
        in_flight = queue + (8.0 * ready if queue else answered * 0.02)
        observation = seen(float(time_s), workers, in_flight, ready=ready, queued=queue, rate=answered)
        decision, state = step(POLICY, state, observation)
        if decision.change > 0:
            ready_at = time_s + 4.0
        workers = decision.workers
        counts.append(workers)
    steady = counts[300:]
    assert max(steady) - min(steady) <= 1
    assert sum(later != earlier for earlier, later in pairwise(steady)) <= 1, "no flapping"
    assert 50 * min(steady) >= rate, "and enough"
