"""The search: rungs of trials, then the best against the default, within a given time and on top of what is known."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ts_handlers.errors import OperatorError
from ts_handlers.operate.tune.halving import TimePlan, fit_plan, make_plan, rank, shrink, stretch, survivors
from ts_handlers.operate.tune.objective import MAX_ERROR_SHARE, Measurement, judge, mean
from ts_handlers.operate.tune.results import Outcome, Results, Trial
from ts_handlers.operate.tune.space import Setting, cross

LEAST_OVERHEAD_S = 5.0
"""No TorchServe starts and stops faster; what it takes here is known after the first trial."""

MAX_FIRST_FAILURES = 3
"""If the first settings all fail, the default among them, it is not the settings."""

MIN_BLOCKS = 2
"""Measured blocks of a setting without which noise is not told from a gain."""

_SAME_LENGTH = 0.75
"""A known measurement counts for a planned one if it is at least so much of it."""


class Progress(Protocol):
    """Who is told how the search goes."""

    def plan(self, num_trials: int, seconds_left: float) -> None:
        """So many trials are left, which will take so long."""

    def begin(self, what: str, setting: Setting) -> None:
        """A trial begins."""

    def end(self, trial: Trial) -> None:
        """A trial has ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may take.

    Attributes:
        budget_s: Seconds of the whole search.
        trial_s: Seconds each setting is measured in the first rung.
        max_settings: Settings that are tried, at most.
    """

    budget_s: float
    trial_s: float
    max_settings: int


class Search:
    """One search; `run` goes through it.

    Args:
        settings: What may be tried, the default first.
        limits: What it may take.
        results: What is known already, and where trials are kept; those that failed before are forgotten, because their
            cause may have been repaired.
        measure: Starts a server, measures it for so many seconds and stops it; the third argument is the rung.
        progress: Who is told how it goes.
        clock: Seconds that pass.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        limits: Limits,
        results: Results,
        measure: Callable[[Setting, float, int | None], Trial],
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._results = results
        self._measure = measure
        self._progress = progress
        self._clock = clock
        self._default = settings[0]
        results.trials = [trial for trial in results.trials if trial.measured is not None]
        spent_s = sum(trial.total_s for trial in results.trials if trial.rung is not None)
        self._deadline = clock() + limits.budget_s - spent_s

    def run(self) -> Outcome:
        """Search, compare, and keep the outcome.

        Raises:
            OperatorError: The time is too short, or nothing can be measured.
        """
        self._trial(self._default, 0, self._limits.trial_s)
        plan = self._first_plan()
        measured = self._first_rung(plan)
        ranked = rank(measured.items(), self._results.objective)
        for index, rung in enumerate(plan.rungs[1:], start=1):
            fitted = self._fit(plan.after(index - 1), index)
            if len(fitted.rungs) < len(plan.rungs) - index:
                break
            chosen = survivors(ranked, fitted.rungs[0].num_settings, self._default)
            if index == 1:
                chosen = tuple(dict.fromkeys((*chosen, cross(self._default, ranked))))
            self._announce(plan.after(index), len(chosen), rung.seconds)
            measured = self._rung(chosen, index, rung.seconds, plan.after(index))
            # where all failed, the order of the round before
            ranked = rank(measured.items(), self._results.objective) or ranked
        outcome = self._decide(ranked, plan)
        self._results.outcome = outcome
        self._results.write()
        return outcome

    def _first_plan(self) -> TimePlan:
        limits = self._limits
        most = min(limits.max_settings, len(self._settings))
        plan = fit_plan(most, limits.trial_s, self._overhead_s(), self._available_s(0))
        if plan is None:
            least_s = make_plan(2, limits.trial_s).cost_s(self._overhead_s())
            raise OperatorError(
                f"{limits.budget_s / 60:g} minutes are too short: a trial takes {self._overhead_s():.0f} s here beyond "
                f"what is measured; give --minutes {math.ceil(least_s / 60)} or more"
            )
        return plan

    def _first_rung(self, plan: TimePlan) -> dict[Setting, Measurement]:
        settings = self._settings[: plan.rungs[0].num_settings]
        self._announce(plan.after(0), len(settings) - 1, self._limits.trial_s)
        measured = self._rung(settings, 0, self._limits.trial_s, plan.after(0))
        if not measured:
            reasons = [trial.reason for trial in self._results.trials if trial.setting == self._default]
            raise OperatorError(f"no setting could be measured; with the default: {reasons[-1]}")
        return measured

    def _rung(
        self, settings: Sequence[Setting], rung: int, seconds: float, later: TimePlan
    ) -> dict[Setting, Measurement]:
        """Measure the settings, as far as the time for what comes later allows; the default in any case."""
        measured: dict[Setting, Measurement] = {}
        for index, setting in enumerate(settings):
            reserve_s = shrink(later, self._overhead_s(), 0, self._limits.trial_s).cost_s(self._overhead_s())
            is_affordable = self._left_s() >= self._overhead_s() + seconds + reserve_s
            if index > 1 and not is_affordable and self._known(setting, rung, seconds) is None:
                continue
            trial = self._trial(setting, rung, seconds)
            if trial.measured is not None:
                measured[setting] = trial.measured
            if index + 1 == MAX_FIRST_FAILURES and rung == 0 and not measured:
                break
        return measured

    def _decide(self, ranked: Sequence[Setting], plan: TimePlan) -> Outcome:
        objective = self._results.objective
        contender = next((setting for setting in ranked if setting != self._default), None)
        if self._default not in ranked or contender is None:
            return Outcome(ranked[0], contender, None, objective.is_met(self._latest(ranked[0])))
        blocks = self._final(contender, plan)
        ours, theirs = blocks[contender], blocks[self._default]
        if min(len(ours), len(theirs)) < MIN_BLOCKS:  # a server that was measured before failed now
            choice = contender if ours and not theirs else self._default
            measured = mean(blocks[choice]) if blocks[choice] else self._latest(choice)
            return Outcome(choice, contender, None, objective.is_met(measured))
        verdict = judge(objective, ours, theirs)
        return Outcome(contender if verdict.is_better else self._default, contender, verdict, verdict.is_met)

    def _final(self, contender: Setting, plan: TimePlan) -> dict[Setting, list[Measurement]]:
        """Measure the contender and the default in turn, twice; blocks of an interrupted comparison do not count."""
        self._results.trials = [trial for trial in self._results.trials if trial.rung is not None]
        fitted = self._fit(TimePlan((), plan.final_s), len(plan.rungs))
        seconds = stretch(fitted, self._overhead_s(), self._left_s())
        self._announce(TimePlan((), seconds), 0, 0)
        blocks: dict[Setting, list[Measurement]] = {contender: [], self._default: []}
        for setting in (contender, self._default) * 2:
            trial = self._run_trial(setting, None, seconds)
            if trial.measured is not None:
                blocks[setting].append(trial.measured)
        return blocks

    def _latest(self, setting: Setting) -> Measurement:
        return [trial.measured for trial in self._results.trials if trial.setting == setting and trial.measured][-1]

    def _trial(self, setting: Setting, rung: int, seconds: float) -> Trial:
        return self._known(setting, rung, seconds) or self._run_trial(setting, rung, seconds)

    def _run_trial(self, setting: Setting, rung: int | None, seconds: float) -> Trial:
        self._progress.begin("final" if rung is None else f"round {rung + 1}", setting)
        trial = self._measure(setting, seconds, rung)
        self._results.add(trial)
        self._progress.end(trial)
        return trial

    def _known(self, setting: Setting, rung: int, seconds: float) -> Trial | None:
        for trial in self._results.trials:
            is_long = trial.measured is None or trial.seconds >= _SAME_LENGTH * seconds
            if trial.setting == setting and trial.rung == rung and is_long:
                return trial
        return None

    def _fit(self, plan: TimePlan, rung: int) -> TimePlan:
        return shrink(plan, self._overhead_s(), self._available_s(rung), self._limits.trial_s)

    def _announce(self, later: TimePlan, num_trials: int, seconds: float) -> None:
        cost_s = num_trials * (self._overhead_s() + seconds) + later.cost_s(self._overhead_s())
        self._progress.plan(num_trials + later.num_trials, cost_s)

    def _available_s(self, rung: int) -> float:
        """Return the seconds for a rung and what follows: those that are left, and those of its trials that are known."""
        known = [trial.total_s for trial in self._results.trials if trial.rung is not None and trial.rung >= rung]
        return self._left_s() + sum(known)

    def _left_s(self) -> float:
        return self._deadline - self._clock()

    def _overhead_s(self) -> float:
        """Return what a trial takes beyond what is measured: the median, because one slow start is no rule."""
        overheads = [trial.total_s - trial.seconds for trial in self._results.trials if trial.measured is not None]
        return statistics.median(overheads) if overheads else LEAST_OVERHEAD_S


def failure(measured: Measurement) -> str | None:
    """Say why a load makes a setting no choice; None where it is one."""
    if measured.error_share <= MAX_ERROR_SHARE:
        return None
    errors = ", ".join(f"{count} x {what}" for what, count in sorted(measured.errors.items()))
    return f"{measured.error_share:.0%} of the requests failed ({errors or 'none was answered'})"
