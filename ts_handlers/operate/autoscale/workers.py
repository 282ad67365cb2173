"""Carry a decision out: add the workers there are CPUs for, remove workers one by one, give up one that does not start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ts_handlers.operate.autoscale.budget import Budget, Claim, claimed_cpus, most_workers
from ts_handlers.operate.autoscale.decide import Decision, State, forget_change
from ts_handlers.operate.autoscale.observe import Window
from ts_handlers.operate.autoscale.remove import NotRemovedError, remove_last_worker
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.resize import Grant
from ts_handlers.operate.autoscale.settings import ModelSettings, Settings
from ts_handlers.operate.torchserve.client import ModelStatus, TorchServe, TorchServeError

_STARTUP_SLACK_S = 60.0
"""A worker's process needs so long, beside the startupTimeout of its model, before it is given up."""

_GIVEN_UP_S = 300.0
"""No worker is added for so long after one could not be started."""

_QUOTA_TIMEOUT_S = 2.0
_QUOTA_SLACK = 0.011
"""The kernel counts a quota in thousandths of a period, Kubernetes in hundredths of a CPU where it is small."""


@dataclass
class ScaledModel:
    """One model's settings, and what is remembered of it.

    Attributes:
        name: Its name.
        settings: Its policy and costs.
        window: The last looks.
        state: What its next decision needs.
        starting_since_s: Since when some of its workers have not been ready.
        given_up_until_s: Until when none is added.
        not_removed_until_s: Until when none is removed, after one could not be.
    """

    name: str
    settings: ModelSettings
    window: Window
    state: State = field(default_factory=State)
    starting_since_s: float | None = None
    given_up_until_s: float = -math.inf
    not_removed_until_s: float = -math.inf


@dataclass(frozen=True)
class Plan:
    """What was seen and decided for one model in this look.

    Attributes:
        model: The model.
        status: Its workers and queue.
        decision: How many workers it should have.
        before: Its state before the decision.
    """

    model: ScaledModel
    status: ModelStatus
    decision: Decision
    before: State


class WorkerScaler:
    """Changes the workers of one server.

    Attributes:
        grant: The CPUs of the pod; infinite where there is none.

    Args:
        settings: The configuration.
        server: TorchServe.
        report: Where changes are told.
        clock: Seconds.
        sleep: Waits; may raise to end everything.
    """

    def __init__(
        self,
        settings: Settings,
        server: TorchServe,
        report: Report,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._settings, self._server, self._report = settings, server, report
        self._clock, self._sleep = clock, sleep
        self.grant = Grant(math.inf)

    def carry_out(self, plan: Plan, present: dict[str, Claim]) -> None:
        """Add or remove workers, and keep in `present` what there is then."""
        model, decision = plan.model, plan.decision
        if decision.change == 0:
            self._watch_start(model, plan.status)
        elif decision.change > 0:
            workers = self._add(plan, present)
            present[model.name] = replace(present[model.name], workers=workers)
        else:
            workers = self._remove(plan)
            present[model.name] = replace(present[model.name], workers=workers)

    def _add(self, plan: Plan, present: Mapping[str, Claim]) -> int:
        """Add the workers that the CPUs in effect are enough for; return how many there are then."""
        model, before = plan.model, len(plan.status.workers)
        workers, why_not = self._fitting(plan, present)
        if workers <= before:
            model.state = forget_change(model.state, plan.before)
            self._report.tell(
                f"waiting {model.name}", f"{model.name}: {plan.decision.workers} workers wanted, {why_not}"
            )
            return before
        self._server.scale(model.name, workers)
        self._report.forget(f"waiting {model.name}")
        self._report.changed(model.name, before, workers, plan.decision)
        return workers

    def _fitting(self, plan: Plan, present: Mapping[str, Claim]) -> tuple[int, str]:
        """Return the workers, up to those wanted, that the pod has CPUs for now; and what keeps it from having more."""
        wanted = plan.decision.workers
        if math.isinf(self.grant.cpus):
            return wanted, ""
        own = present[plan.model.name]
        others = [claim for name, claim in present.items() if name != plan.model.name]
        budget = Budget(self.grant.cpus, self._settings.budget.frontend_cpus)
        workers = min(wanted, most_workers(budget, own, others).workers)
        if workers <= own.workers:
            known = f"{self.grant.cpus:g} CPUs are in effect" if self.grant.cpus else "the pod's CPUs are not known"
            return own.workers, known
        quota = self._quota(plan.model.name)
        needed = claimed_cpus(budget, [replace(own, workers=workers), *others])
        if quota is not None and quota < needed - _QUOTA_SLACK:
            return own.workers, f"the cgroup still has {quota:g} CPUs, and {needed:g} are needed"
        return workers, ""

    def _quota(self, model: str) -> float | None:
        """Return the CPU quota as a worker reads it in its own cgroup; None where none says so in time.

        A queue that is long can keep the question from being answered, and that is when workers are needed: then what
        the kubelet reports has to do.
        """
        try:
            said = self._server.describe_by_worker(model, {}, _QUOTA_TIMEOUT_S).get("cpu_quota")
        except TorchServeError as error:
            self._report.tell(
                f"quota {model}", f"{model}: no worker says its CPU quota; the kubelet's word counts: {error}"
            )
            return None
        return float(said) if isinstance(said, (int, float)) else None

    def _remove(self, plan: Plan) -> int:
        """Remove workers one by one, each while it is held; return how many there are then."""
        model, workers = plan.model, len(plan.status.workers)
        if self._clock() < model.not_removed_until_s:
            model.state = forget_change(model.state, plan.before)
            return workers
        try:
            while workers > plan.decision.workers:
                remove_last_worker(self._server, model.name, self._settings.hold_timeout_s, self._sleep)
                workers -= 1
        except NotRemovedError as error:
            model.not_removed_until_s = self._clock() + self._settings.hold_timeout_s
            self._report.tell(f"removal {model.name}", str(error), is_problem=True)
        if workers < len(plan.status.workers):
            self._report.forget(f"removal {model.name}")
            self._report.changed(model.name, len(plan.status.workers), workers, plan.decision)
        else:
            model.state = forget_change(model.state, plan.before)
        return workers

    def _watch_start(self, model: ScaledModel, status: ModelStatus) -> None:
        """Give up a new worker that does not get ready in time: TorchServe would try it again and again."""
        now = self._clock()
        if status.num_ready == len(status.workers):
            model.starting_since_s = None
            return
        if model.starting_since_s is None:
            model.starting_since_s = now
        seconds = now - model.starting_since_s
        if seconds < status.startup_timeout_s + _STARTUP_SLACK_S:
            return
        last = status.workers[-1]
        if last.is_ready or len(status.workers) <= model.settings.min_workers:
            self._report.tell(
                f"start {model.name}", f"{model.name}: a worker is not ready after {seconds:.0f} s", is_problem=True
            )
            return
        self._server.scale(model.name, len(status.workers) - 1)
        model.starting_since_s = None
        model.given_up_until_s = now + _GIVEN_UP_S
        self._report.tell(
            f"start {model.name}",
            f"{model.name}: worker {last.name} was not ready after {seconds:.0f} s and is removed; none is added for "
            f"{_GIVEN_UP_S:.0f} s; see TorchServe's logs",
            is_problem=True,
        )
