"""Successive halving with a factor of 3, within a given time. Pure functions.

Every setting is measured briefly; the best third goes on and is measured three times as long, and so on (Jamieson and
Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016). The default goes on always,
because the best of the others is compared with it at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ts_handlers.operate.tune.objective import Measurement, Objective
from ts_handlers.operate.tune.space import Setting

ETA = 3
NUM_FINAL_BLOCKS = 4
MAX_MEASURED_S = 60.0
"""A longer measurement says little more, and costs the trial of another setting."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One round of the search.

    Attributes:
        num_settings: Settings it measures, the default among them.
        seconds: How long each is measured.
    """

    num_settings: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TimePlan:
    """What is still to be measured.

    Attributes:
        rungs: The rounds, each with fewer settings and more seconds than the one before.
        final_s: Seconds of each of the four blocks of the final comparison, at least.
    """

    rungs: tuple[Rung, ...]
    final_s: float

    @property
    def num_trials(self) -> int:
        """Servers that are started."""
        return sum(rung.num_settings for rung in self.rungs) + NUM_FINAL_BLOCKS

    def cost_s(self, overhead_s: float) -> float:
        """Return the seconds it takes.

        Args:
            overhead_s: Seconds a trial takes beyond what is measured: the server's start and stop, and the warm-up.
        """
        rungs = sum(rung.num_settings * (overhead_s + rung.seconds) for rung in self.rungs)
        return rungs + NUM_FINAL_BLOCKS * (overhead_s + self.final_s)

    def after(self, rung: int) -> TimePlan:
        """Return what is left after a rung, by its index."""
        return replace(self, rungs=self.rungs[rung + 1 :])


def make_plan(num_settings: int, trial_s: float) -> TimePlan:
    """Plan the search of so many settings, at least 2."""
    rungs, size, seconds = [], num_settings, trial_s
    while True:
        rungs.append(Rung(size, min(seconds, MAX_MEASURED_S)))
        size = math.ceil(size / ETA)
        if size <= 2:  # the final compares two
            return TimePlan(tuple(rungs), rungs[-1].seconds)
        seconds *= ETA


def fit_plan(max_settings: int, trial_s: float, overhead_s: float, available_s: float) -> TimePlan | None:
    """Return the plan with the most settings that takes no longer than there is; None where two are too many."""
    for count in range(max_settings, 1, -1):
        plan = make_plan(count, trial_s)
        if plan.cost_s(overhead_s) <= available_s:
            return plan
    return None


def shrink(plan: TimePlan, overhead_s: float, available_s: float, least_s: float) -> TimePlan:
    """Return a plan that fits the time there is: fewer settings, then fewer rungs, then a shorter final.

    Args:
        plan: What was planned; servers can start more slowly than was thought.
        overhead_s: Seconds a trial takes beyond what is measured.
        available_s: Seconds there are.
        least_s: A block of the final is not shorter.
    """
    while plan.rungs and plan.cost_s(overhead_s) > available_s:
        largest = max(plan.rungs, key=lambda rung: rung.num_settings)
        rungs = (
            tuple(replace(rung, num_settings=rung.num_settings - 1) if rung is largest else rung for rung in plan.rungs)
            if largest.num_settings > ETA
            else plan.rungs[:-1]
        )
        plan = replace(plan, rungs=rungs)
    excess_s = plan.cost_s(overhead_s) - available_s
    if excess_s <= 0:
        return plan
    return replace(plan, final_s=max(least_s, plan.final_s - excess_s / NUM_FINAL_BLOCKS))


def stretch(plan: TimePlan, overhead_s: float, available_s: float) -> float:
    """Return the seconds of a block of the final that use the time there is, at most three times what was planned."""
    block_s = available_s / NUM_FINAL_BLOCKS - overhead_s
    return min(max(plan.final_s, block_s), ETA * plan.final_s, MAX_MEASURED_S)


def rank(measured: Iterable[tuple[Setting, Measurement]], objective: Objective) -> list[Setting]:
    """Return the settings, best first; equal ones in the order they came."""
    return [setting for setting, _ in sorted(measured, key=lambda pair: objective.score(pair[1]), reverse=True)]


def survivors(ranked: Sequence[Setting], count: int, default: Setting) -> tuple[Setting, ...]:
    """Return who goes on: the best, and always the default where it was measured."""
    if default not in ranked:
        return tuple(ranked[:count])
    best = [setting for setting in ranked if setting != default][: count - 1]
    return (default, *best)
