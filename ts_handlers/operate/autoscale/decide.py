"""How many workers a model should have: a pure function of what was observed, that says why.

Two figures say how many workers the traffic needs:

* its pressure, requests in flight / target in flight of one worker. A queue makes it grow at once. It adds workers.
* its need, the larger of that and of rate / (capacity of one worker * highest utilization). It must be low for workers to be
  removed. A model whose queue has just been cleared has no pressure: the workers that were added are why there is no queue.
  The capacity is learned while there is one. It can be too low, seldom too high, so it is no reason to add workers.

Pressure must be above (need below) what there is for a whole window before workers are added (removed). Windows are
multiples of the time a worker takes to load, because nothing that is over sooner than that is worth a worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ts_handlers.config.settings import setting

Cause = Literal["steady", "load", "idle", "latency", "minimum", "maximum", "budget", "starting", "window", "cooldown"]

SATURATED_QUEUE = 1.0
"""Requests in the queue for each worker from which on all are taken to be busy."""

_CAPACITY_WEIGHT = 0.3
"""Weight of the newest sample in the moving average of a worker's capacity."""

_LEAST_LOAD_TIME_S = 0.5
"""Windows of a worker that loads at once would be empty."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When one model gets and loses workers.

    Attributes:
        min_workers: Fewest workers.
        max_workers: Most workers.
        target_in_flight: Requests in flight, the queue included, for one worker; less than 1 where batches are of one.
        max_utilization: Highest share of their capacity that workers may be left with when some are removed.
        max_latency_ms: Mean latency, the queue included, from which on one more worker is wanted; None for no limit.
        tolerance: Share by which pressure must be over the workers there are before any are added; also what is kept in
            reserve when some are removed.
        max_step_up: Most workers added at once.
        max_step_down: Most workers removed at once.
        up_load_times: How long pressure must be high, in load times.
        down_load_times: How long need must be low, in load times.
        cooldown_load_times: Least time between two changes, in load times.
    """

    min_workers: int = setting(1, minimum=1)
    max_workers: int = setting(4, minimum=1)
    target_in_flight: float = setting(4.0, minimum=0.01)
    max_utilization: float = setting(0.8, minimum=0.05)
    max_latency_ms: float | None = setting(None, minimum=0.001)
    tolerance: float = setting(0.1, minimum=0)
    max_step_up: int = setting(2, minimum=1)
    max_step_down: int = setting(1, minimum=1)
    up_load_times: float = setting(0.5, minimum=0)
    down_load_times: float = setting(10.0, minimum=0)
    cooldown_load_times: float = setting(2.0, minimum=0)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one model.

    Attributes:
        time_s: When, on any clock that only goes forward.
        workers: Workers there are, starting ones included.
        ready: Those that serve.
        in_flight: Mean number of requests in the server, the queue included.
        queued: Mean number of requests in the queue.
        rate: Requests answered per second.
        latency_ms: Mean latency of those, the queue included; None where there were none.
        load_time_s: How long a worker takes to load.
        failed: Answers 5xx per second of the whole server: what this model may have refused, beside the rest.
    """

    time_s: float
    workers: int
    ready: int
    in_flight: float
    queued: float
    rate: float
    latency_ms: float | None = None
    load_time_s: float = 30.0
    failed: float = 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """The most workers a model may have now, for another reason than its own policy.

    Attributes:
        workers: Their number.
        reason: What limits them, in a few words.
    """

    workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What one observation came to.

    Attributes:
        time_s: When.
        pressure: Workers that the requests in flight want.
        need: Workers that the traffic needs, whether or not requests wait.
    """

    time_s: float
    pressure: float
    need: float


@dataclass(frozen=True, slots=True)
class State:
    """What has to be remembered of one model between two decisions.

    Attributes:
        demands: What the observations that a window can still need came to, oldest first.
        capacity: Requests per second of one worker; None until there was a queue.
        changed_s: When the number of workers was last changed; None for never.
    """

    demands: tuple[Demand, ...] = ()
    capacity: float | None = None
    changed_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there should be, and why.

    Attributes:
        workers: Workers wanted now.
        change: Workers to add; negative: to remove.
        demand: Workers that the traffic needs, as observed last.
        cause: What decided, as a label.
        reason: The same in words, with figures.
    """

    workers: int
    change: int
    demand: float
    cause: Cause
    reason: str


def decide(policy: Policy, state: State, seen: Observation, limit: Limit | None = None) -> tuple[Decision, State]:
    """Return how many workers a model should have, and the state for the next call.

    Whoever carries a change out goes on with `changed(state, now)`: two changes are a cooldown apart.

    Args:
        policy: The model's policy.
        state: What the last call returned; `State()` for the first.
        seen: What was observed.
        limit: What budgets allow; None for no limit.
    """
    capacity = _learn_capacity(state.capacity, seen)
    demand, figures = _demand(policy, capacity, seen)
    load_time_s = max(_LEAST_LOAD_TIME_S, seen.load_time_s)
    longest_s = load_time_s * max(policy.up_load_times, policy.down_load_times)
    older = sum(each.time_s < seen.time_s - longest_s for each in state.demands)
    # the newest of the older ones shows that the window is covered
    state = replace(state, demands=(*state.demands[max(0, older - 1) :], demand), capacity=capacity)
    workers, cause, reason = _choose(policy, state, seen, load_time_s, limit)
    return Decision(workers, workers - seen.workers, demand.need, cause, f"{reason}; {figures}"), state


def changed(state: State, time_s: float) -> State:
    """Return the state after workers were added or removed at that time."""
    return replace(state, changed_s=time_s)


def _learn_capacity(known: float | None, seen: Observation) -> float | None:
    """Return requests per second of one worker: exact while all have work waiting, else at least what each answers.

    The least is without whatever failed on the server: between two looks a queue can fill, refuse requests and be cleared.
    """
    if seen.ready == 0 or seen.rate <= 0:
        return known
    if seen.queued >= SATURATED_QUEUE * seen.ready:
        sample = seen.rate / seen.ready
        return sample if known is None else known + _CAPACITY_WEIGHT * (sample - known)
    return known if known is None else max(known, (seen.rate - seen.failed) / seen.ready)


def _demand(policy: Policy, capacity: float | None, seen: Observation) -> tuple[Demand, str]:
    """Return what the traffic comes to, and the figures that it comes from."""
    pressure = seen.in_flight / policy.target_in_flight
    if _is_slow(policy, seen):
        pressure = max(pressure, seen.workers * (1 + policy.tolerance) + 0.5)
    by_rate = 0.0 if not capacity else seen.rate / (capacity * policy.max_utilization)
    demand = Demand(seen.time_s, pressure, max(pressure, by_rate))
    what = f"in flight {seen.in_flight:.1f}, queued {seen.queued:.1f}, {seen.rate:.1f} requests/s"
    what += "" if capacity is None else f" at {capacity:.1f} a worker"
    what += "" if seen.latency_ms is None else f", latency {seen.latency_ms:.0f} ms"
    return demand, f"now pressure {pressure:.2f}, need {demand.need:.2f} ({what})"


def _is_slow(policy: Policy, seen: Observation) -> bool:
    return policy.max_latency_ms is not None and (seen.latency_ms or 0.0) > policy.max_latency_ms


def _window(state: State, now_s: float, seconds: float) -> list[Demand] | None:
    """Return the demands of the last seconds; None where observations do not reach so far back."""
    since_s = now_s - seconds
    if state.demands[0].time_s > since_s:
        return None
    return [demand for demand in state.demands if demand.time_s >= since_s]


def _choose(
    policy: Policy, state: State, seen: Observation, load_time_s: float, limit: Limit | None
) -> tuple[int, Cause, str]:
    """Return the workers wanted, the cause and the reason: bounds first, then what forbids a change, then demand."""
    low, high = policy.min_workers, policy.max_workers
    bound: Cause = "maximum"
    why = f"max_workers {high}"
    if limit is not None and limit.workers < high:  # the fewest give way to it as well, but for one worker
        high, bound, why = max(1, limit.workers), "budget", limit.reason
        low = min(low, high)
    if seen.workers < low:
        workers = min(low, seen.workers + policy.max_step_up)
        return workers, "minimum", f"{seen.workers} workers are fewer than min_workers {policy.min_workers}"
    if seen.ready < seen.workers:
        return seen.workers, "starting", f"{seen.workers - seen.ready} of {seen.workers} workers are not ready yet"
    if seen.workers > high:
        return max(high, seen.workers - policy.max_step_down), bound, f"at most {high}: {why}"
    wanted, cause, reason = _by_demand(policy, state, seen, load_time_s, low)
    if wanted == seen.workers:
        return wanted, cause, reason
    if state.changed_s is not None:
        left_s = state.changed_s + policy.cooldown_load_times * load_time_s - seen.time_s
        if left_s > 0:
            return seen.workers, "cooldown", f"{wanted} wanted, {left_s:.0f} s of cooldown left"
    if wanted > high == seen.workers:
        return high, bound, f"{wanted} wanted, stays: {why}"
    return min(high, wanted), cause, reason


def _by_demand(
    policy: Policy, state: State, seen: Observation, load_time_s: float, least: int
) -> tuple[int, Cause, str]:
    """Compare the demand of a whole window with the workers there are; never ask for less than the fewest."""
    up_s, down_s = policy.up_load_times * load_time_s, policy.down_load_times * load_time_s
    ups, downs = (_window(state, seen.time_s, seconds) for seconds in (up_s, down_s))
    enough = seen.workers * (1 + policy.tolerance)
    if ups is not None and (pressure := min(demand.pressure for demand in ups)) > enough:
        wanted = min(math.ceil(pressure), seen.workers + policy.max_step_up)
        cause: Cause = "latency" if _is_slow(policy, seen) else "load"
        return wanted, cause, f"pressure was at least {pressure:.2f} for {up_s:.1f} s"
    if downs is not None:
        need = max(demand.need for demand in downs)
        wanted = max(least, _needed(policy, need), seen.workers - policy.max_step_down)
        if wanted < seen.workers:
            return wanted, "idle", f"need was at most {need:.2f} for {down_s:.1f} s"
    now = state.demands[-1]
    if now.pressure > enough or max(least, _needed(policy, now.need)) < seen.workers:
        return seen.workers, "window", "it has not been so for long enough yet"
    return seen.workers, "steady", f"{seen.workers} workers are enough"


def _needed(policy: Policy, need: float) -> int:
    return math.ceil(need * (1 + policy.tolerance))
