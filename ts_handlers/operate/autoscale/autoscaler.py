"""The loop: look at TorchServe, decide for each model, bring pod and workers there. Nothing in it waits for long.

It is level-triggered: whatever a look finds (a restarted server, a resize that was granted at last, somebody else's
scaling) is where it goes on from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ts_handlers.cpu import cpu_budget
from ts_handlers.memory import available_memory
from ts_handlers.operate.autoscale.budget import Budget, Claim, claimed_cpus, most_workers
from ts_handlers.operate.autoscale.decide import Limit, Observation, decide, forget_change
from ts_handlers.operate.autoscale.observe import Sample, Window
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.resize import Resizer
from ts_handlers.operate.autoscale.settings import Settings
from ts_handlers.operate.autoscale.workers import Plan, ScaledModel, WorkerScaler
from ts_handlers.operate.torchserve.client import ModelStatus, TorchServe, TorchServeError
from ts_handlers.operate.torchserve.metrics import Counters

_MIB = 2**20
_SETTLING_S = 0.5
"""Seconds to the next look while a resize is under way."""


class Autoscaler:
    """Scales the workers of some models of one server.

    Args:
        settings: The configuration.
        server: TorchServe.
        resizer: The pod; None where workers are scaled on one machine.
        report: Where it tells what it does.
        clock: Seconds.
        sleep: Waits; may raise to end everything.
        is_dry_run: Whether only to say what would be done.
    """

    def __init__(
        self,
        settings: Settings,
        server: TorchServe,
        resizer: Resizer | None,
        report: Report,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        is_dry_run: bool = False,
    ) -> None:
        self._settings, self._server, self._resizer, self._report = settings, server, resizer, report
        self._clock, self._sleep, self._is_dry_run = clock, sleep, is_dry_run
        self._models = [
            ScaledModel(name, model, Window(name, settings.window_s, model.load_time_s))
            for name, model in settings.models.items()
        ]
        self._scaler = WorkerScaler(settings, server, report, clock, sleep)

    def run(self) -> None:
        """Look and act until `sleep` raises."""
        while True:
            self._sleep(self.look())

    def look(self) -> float:
        """Look once, do what is to be done, and return the seconds until the next look."""
        found = self._read()
        if not found:
            return self._settings.interval_s
        counters = self._read_counters()
        claims = {model.name: _claim(model, status) for model, status in found}
        decided = [self._decide(model, status, counters, claims) for model, status in found]
        plans = [plan for plan in decided if plan is not None]
        if self._is_dry_run:
            self._tell_plans(plans)
            return self._settings.interval_s
        self._resize(claims, len(found) == len(self._models))
        present = {model.name: _claim(model, status) for model, status in found}
        for plan in plans:
            try:
                self._scaler.carry_out(plan, present)
            except TorchServeError as error:  # noqa: PERF203  # the other models go on
                self._report.up("torchserve", str(error))
                plan.model.state = forget_change(plan.model.state, plan.before)
        return min(self._settings.interval_s, max(_SETTLING_S, self._scaler.grant.look_in_s))

    def _read(self) -> list[tuple[ScaledModel, ModelStatus]]:
        """Return the models that TorchServe describes."""
        found, problem = [], None
        for model in self._models:
            try:
                found.append((model, self._server.status(model.name)))
            except TorchServeError as error:  # noqa: PERF203  # each model is asked for apart
                problem = str(error)
        self._report.up("torchserve", problem)
        return found

    def _read_counters(self) -> Counters | None:
        try:
            counters = self._server.counters()
        except TorchServeError as error:
            self._report.up("metrics", f"{error}; the queue alone decides")
            return None
        self._report.up("metrics", None)
        return counters

    def _decide(
        self, model: ScaledModel, status: ModelStatus, counters: Counters | None, claims: dict[str, Claim]
    ) -> Plan | None:
        """Decide for one model, and raise its claim to what it is to get (its fewest workers at least), for all to see."""
        before = model.state
        seen = model.window.add(Sample(self._clock(), status, counters))
        if seen is None:
            claims[model.name] = _at_least(claims[model.name], model.settings.min_workers)
            return None
        decision, model.state = decide(model.settings, before, seen, self._limit(model, seen, claims))
        self._report.observed(model.name, seen, decision)
        workers = max(decision.workers, model.settings.min_workers)
        claims[model.name] = _at_least(claims[model.name], workers)
        return Plan(model, status, decision, before)

    def _limit(self, model: ScaledModel, seen: Observation, claims: Mapping[str, Claim]) -> Limit:
        own = claims[model.name]
        others = [claim for name, claim in claims.items() if name != model.name]
        limit = most_workers(self._budget(claims), own, others)
        if seen.time_s < model.given_up_until_s and seen.workers < limit.workers:
            return Limit(seen.workers, "a worker could not be started lately")
        return limit

    def _budget(self, claims: Mapping[str, Claim]) -> Budget:
        """Return what all workers may take: as configured, else what there is."""
        settings = self._settings.budget
        cpus = cpu_budget().cpus if settings.max_cpus is None else settings.max_cpus
        memory: float | None = None
        if settings.memory_mb is not None:
            memory = (settings.memory_mb - settings.frontend_memory_mb) * _MIB
        elif self._resizer is None:
            memory = available_memory() + sum(claim.workers * claim.memory_bytes for claim in claims.values())
        elif self._scaler.grant.memory_bytes is not None:
            memory = self._scaler.grant.memory_bytes - settings.frontend_memory_mb * _MIB
        return Budget(cpus, settings.frontend_cpus, memory)

    def _resize(self, claims: Mapping[str, Claim], is_complete: bool) -> None:
        """Bring the pod to what all workers need, those to come included; not while some of them are not known."""
        if self._resizer is None or not is_complete:
            return
        budget = self._budget(claims)
        self._scaler.grant = self._resizer.reconcile(min(budget.cpus, claimed_cpus(budget, list(claims.values()))))

    def _tell_plans(self, plans: list[Plan]) -> None:
        for plan in plans:
            name, decision, before = plan.model.name, plan.decision, len(plan.status.workers)
            if decision.change:
                self._report.planned(name, before, decision)
            else:
                self._report.forget(f"plan {name}")


def _at_least(claim: Claim, workers: int) -> Claim:
    return replace(claim, workers=max(claim.workers, workers))


def _claim(model: ScaledModel, status: ModelStatus) -> Claim:
    """Return what a model's workers take: their memory as configured, else as TorchServe has measured it."""
    configured = model.settings.memory_per_worker_mb
    measured = max((worker.memory_bytes for worker in status.workers), default=0)
    memory = measured if configured is None else configured * _MIB
    return Claim(len(status.workers), model.settings.cpus_per_worker, memory)
