"""The simulation of autoscaling: its queue against closed forms, its autoscalers against what their documentation says."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.simulation.cluster import Cluster, Platform, Service
from bench.simulation.day import Scenario, simulate
from bench.simulation.hpa import Limiter, PodCpu, Policy, rate, replicas_by_cpu
from bench.simulation.kpa import Activator, Kpa
from bench.simulation.pod import Answers, Pod
from bench.simulation.scenarios import Scenarios
from bench.simulation.traffic import arrivals

SERVICE = Service(
    call_seconds=0.002, request_seconds=0.04, noise=0.1, worker_load_seconds=4.0, server_start_seconds=12.0
)
PLATFORM = Platform()
SLO_SECONDS = 0.5


def pod_of(workers: int, batch_seconds: tuple[float, ...], noise: Iterator[float] | None = None, **changes: Any) -> Pod:
    facts: dict[str, Any] = {"job_queue_size": 10**9, "answers": Answers(), "noise": noise or itertools.cycle([1.0])}
    return Pod(1, 0.0, 0.0, workers, batch_seconds=batch_seconds, **facts | changes)


def mean_wait(pod: Pod, times: np.ndarray) -> float:
    """Return the mean time in the queue once everything is done."""
    for time in times.tolist():
        pod.admit(time, time)
    pod.settle(math.inf)
    return pod.queue_seconds / len(times)


def test_one_worker_waits_as_the_formula_of_pollaczek_and_khinchine_says() -> None:
    load, seconds = 0.7, 0.05
    times = arrivals(np.full(12_000, load / seconds), seed=1)
    assert mean_wait(pod_of(1, (0.0, seconds)), times) == pytest.approx(load * seconds / 2 / (1 - load), rel=0.04)


def test_several_workers_wait_as_erlangs_formula_says() -> None:
    workers, seconds, load = 3, 0.1, 0.8
    offered = workers * load
    some = sum(offered**k / math.factorial(k) for k in range(workers))
    all_busy = offered**workers / math.factorial(workers) / (1 - load)
    expected = all_busy / (some + all_busy) * seconds / workers / (1 - load)
    times = arrivals(np.full(12_000, offered / seconds), seed=2)
    noise = np.random.default_rng(3).exponential(size=len(times))
    assert mean_wait(pod_of(workers, (0.0, seconds), iter(noise.tolist())), times) == pytest.approx(expected, rel=0.06)


def test_a_full_batch_is_taken_when_a_worker_is_free_and_its_time_is_that_of_its_size() -> None:
    pod = pod_of(1, (0.0, 1.0, 1.5, 2.0))
    for time in (0.0, 0.1, 0.2, 0.3, 0.4):
        pod.admit(time, time)
    pod.settle(2.5)
    assert pod.completed == 1  # alone from 0 to 1, then three until 3, then one until 4
    pod.settle(4.0)
    assert (pod.completed, pod.num_in_flight(4.0)) == (5, 0)
    assert pod.queue_seconds == pytest.approx(0.9 + 0.8 + 0.7 + 2.6)
    assert pod.busy_seconds(4.0) == pytest.approx(4.0)
    assert pod.in_flight_seconds(4.0) == pytest.approx(1.0 + 2.9 + 2.8 + 2.7 + 3.6)


@settings(max_examples=60)
@given(
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=80),
    workers=st.integers(1, 3),
    queue=st.integers(1, 6),
    moves=st.lists(st.tuples(st.integers(0, 79), st.sampled_from([-1, 1])), max_size=6),
)
def test_no_request_is_lost_while_workers_come_and_go(
    gaps: list[float], workers: int, queue: int, moves: list[tuple[int, int]]
) -> None:
    answers = Answers()
    pod = pod_of(workers, (0.0, 0.3, 0.5), job_queue_size=queue, answers=answers)
    now, most = 0.0, workers
    for index, gap in enumerate(gaps):
        now += gap
        for _, change in (move for move in moves if move[0] == index):
            if change > 0:
                pod.add_worker(now + 0.4)
                most += 1
            elif pod.num_workers > 1:
                assert pod.remove_worker(now) >= now
        pod.admit(now, now)
        assert pod.num_waiting <= queue
    pod.settle(math.inf)
    assert len(answers.finished) + len(answers.rejected) == len(gaps)
    assert all(done >= came + 0.25 for came, done in zip(answers.arrived, answers.finished, strict=True))
    assert list(answers.arrived) == sorted(answers.arrived)  # first come, first served


def test_the_rate_is_prometheus_own() -> None:
    times, values = [0.0, 15.0, 30.0, 45.0, 60.0], [0.0, 30.0, 60.0, 90.0, 120.0]
    assert rate(times, values, 60.0) == pytest.approx(2.0)
    assert rate(times, values, 66.0) == pytest.approx(2.0)  # 15 to 60, and 9 and 6 s to the ends
    assert rate(times, [100.0] * 3 + [115.0, 130.0], 60.0) == pytest.approx(
        (30 + 15 / 45 * 30) / 60 * 60 / 60, rel=0.01
    )
    assert rate(times[:1], values[:1], 10.0) is None
    late = rate([55.0, 60.0], [0.0, 10.0], 60.0)  # a counter that began at zero within the window
    assert late == pytest.approx(10.0 / 60)


@pytest.mark.parametrize(("utilization", "expected"), [(1.0, 4), (0.54, 2), (0.45, 2), (0.4, 2), (0.2, 1)])
def test_the_hpa_takes_the_ratio_of_utilization_and_target_beyond_its_tolerance(
    utilization: float, expected: int
) -> None:
    pods = [steady_pod(utilization)] * 2
    assert replicas_by_cpu(pods, 2, 0.5, now=1000.0) == expected


def steady_pod(utilization: float) -> PodCpu:
    return PodCpu(0.0, is_ready=True, changed=10.0, sampled=990.0, utilization=utilization)


def test_pods_that_start_are_idle_to_the_hpa_and_those_without_a_sample_busy_when_it_is_about_fewer() -> None:
    starting = replace(steady_pod(1.0), started=980.0, is_ready=False, changed=980.0)
    pending = PodCpu(None, is_ready=False, changed=999.0, sampled=None, utilization=0.0)
    nine = [steady_pod(5.25 / 9)] * 9
    assert replicas_by_cpu(nine, 9, 0.5, now=1000.0) == 11
    assert replicas_by_cpu([*nine, starting], 10, 0.5, now=1000.0) == 10  # 1.05 of the target, with a tenth idle
    assert replicas_by_cpu([steady_pod(1.0)] * 2 + [pending], 3, 0.5, now=1000.0) == 4
    unsampled = replace(steady_pod(0.0), sampled=None)
    assert replicas_by_cpu([steady_pod(0.1)] * 3 + [unsampled], 4, 0.5, now=1000.0) == 3
    assert replicas_by_cpu([unsampled], 1, 0.5, now=1000.0) == 1


def test_down_waits_for_the_highest_wish_of_five_minutes_and_up_is_limited_by_the_larger_policy() -> None:
    up = (Policy("Percent", 100, 15), Policy("Pods", 4, 15))  # Kubernetes' own
    limiter = Limiter(1, 100, up, (Policy("Percent", 100, 15),))
    assert limiter.limit(0.0, 1, 50) == 5  # 4 pods are more than 100 % of one
    assert limiter.limit(15.0, 5, 50) == 10
    assert limiter.limit(30.0, 10, 8) == 10
    assert [limiter.limit(30.0 + 15.0 * step, 10, 2) for step in (1, 18, 19)] == [10, 10, 8]
    assert limiter.limit(400.0, 8, 0) == 2
    slow = Limiter(1, 10, stabilization_seconds=0)
    assert [slow.limit(now, pods, 1) for now, pods in ((0.0, 6), (15.0, 5), (61.0, 5))] == [5, 5, 4]


def test_kpa_panics_at_twice_the_pods_and_only_grows_until_a_stable_window_has_passed() -> None:
    cluster = Cluster(SERVICE, PLATFORM, pod_workers=2)
    decision, limited = (Kpa(cluster, Activator(cluster), 1.0, max_scale=most) for most in (50, 6))
    assert decision.decide(0.0, stable=4.0, panic=4.0, num_ready=4) == 4
    assert decision.decide(2.0, stable=4.6, panic=8.0, num_ready=4) == 8
    assert decision.panic_since == 2.0
    assert decision.decide(4.0, stable=5.0, panic=2.0, num_ready=4) == 8
    assert decision.decide(62.0, stable=2.0, panic=2.0, num_ready=8) == 8
    assert decision.decide(64.0, stable=2.0, panic=2.0, num_ready=8) == 4  # by no more than max-scale-down-rate
    assert decision.decide(66.0, stable=0.0, panic=0.0, num_ready=1) == 0
    assert limited.decide(0.0, 9.0, 9.0, num_ready=2) == 6


def test_kpa_goes_to_zero_after_the_retention_period_and_the_next_request_waits_for_a_pod() -> None:
    cluster = Cluster(SERVICE, PLATFORM, pod_workers=2)
    activator = Activator(cluster)
    kpa = Kpa(cluster, activator, 3.0, max_scale=12, retention_seconds=100)
    scenario = Scenario("KPA", "", lambda: (cluster, activator, [kpa]))
    outcome = simulate(scenario, np.array([0.5, 400.2]), 600, SLO_SECONDS)
    starts = PLATFORM.pod_start_seconds(SERVICE)
    assert (outcome.num_late, outcome.num_rejected) == (1, 0)
    latencies = np.frombuffer(cluster.answers.finished) - np.frombuffer(cluster.answers.arrived)
    assert latencies[1] == pytest.approx(starts, abs=1.5)
    assert outcome.cpu_hours * 3600 < 2 * (60 + 100 + 20 + 200)
    assert [outcome.minutes["cpus"][minute] for minute in (0, 1, 4)] == [2, 2, 0]


def test_the_activator_holds_what_no_pod_has_room_for_and_releases_it_as_batches_end() -> None:
    cluster = Cluster(replace(SERVICE, noise=0.0), PLATFORM, pod_workers=1, num_pods=2)
    activator = Activator(cluster, concurrency=2, capacity=5)
    activator.route([0.1 + index / 1000 for index in range(12)], until=0.11)
    assert (activator.num_held, len(cluster.answers.rejected)) == (5, 3)
    assert [pod.num_in_flight(0.11) for pod in cluster.pods] == [2, 2]
    activator.route([], until=0.16)  # both have done their first request
    assert activator.num_held == 3
    activator.route([], until=9.0)
    assert (activator.num_held, len(cluster.answers.finished)) == (0, 9)
    released = (0.142, 0.143, 0.224, 0.224, 0.225)  # as batches end: one request each, then two
    assert activator.held_seconds == pytest.approx(sum(released) - sum(0.104 + index / 1000 for index in range(5)))


@pytest.fixture(scope="module")
def burst() -> np.ndarray:
    """A quarter of an hour: little, then thrice what a pod can do, then nothing."""
    return arrivals(np.repeat([20.0, 140.0, 20.0, 0.0], [240, 240, 240, 180]), seed=5)


@pytest.mark.parametrize("index", range(4))
def test_every_autoscaler_loses_nothing_and_reserves_no_less_than_the_least_pods(burst: np.ndarray, index: int) -> None:
    scenario = Scenarios(SERVICE, PLATFORM).shipped()[index]
    outcome = simulate(scenario, burst, 900, SLO_SECONDS)
    assert outcome.num_requests == len(burst)
    least = {"KPA": 0, "KEDA and worker autoscaler": 1}.get(scenario.family, 2)
    assert outcome.minutes["cpus"].min() >= least
    used = len(burst) * SERVICE.request_seconds / 3600
    assert outcome.cpu_hours >= max(used, 900 * least / 3600)
    assert outcome.most_cpus > 4
    assert outcome.miss_share < 0.6
    again = simulate(scenario, burst, 900, SLO_SECONDS)
    assert again.to_json() == outcome.to_json()
