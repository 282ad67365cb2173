"""The loop: look at TorchServe, decide for each model, bring pod and workers there. Nothing in it waits for long.

It is level-triggered: whatever a look finds (a restarted server, a resize that was granted at last, somebody else's
scaling) is where it goes on from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ts_handlers.machine import cpu_budget
from ts_handlers.machine.memory import available_memory
from ts_handlers.operate.autoscale.decide import Limit
from ts_handlers.operate.autoscale.pod import Resizer
from ts_handlers.operate.autoscale.remove import in_background
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import Settings
from ts_handlers.operate.autoscale.workers import Start, Workers, claimed_cpus, most_workers
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError
from ts_handlers.operate.torchserve.metrics import Counters

_SETTLING_S = 0.5
"""Seconds to the next look while a resize is under way."""

_QUOTA_TIMEOUT_S = 2.0
_QUOTA_SLACK = 0.011
"""The kernel counts a quota in thousandths of a period, Kubernetes in hundredths of a CPU where it is small."""


class Autoscaler:
    """Scales the workers of some models of one server.

    Args:
        settings: The configuration.
        server: TorchServe.
        resizer: The pod; None where workers are scaled on one machine.
        report: Where it tells what it does.
        clock: Seconds.
        start: Starts in the background what may take long.
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
        start: Start = in_background,
        is_dry_run: bool = False,
    ) -> None:
        self._settings, self._server, self._resizer, self._report = settings, server, resizer, report
        self._is_dry_run, self._frontend_cpus = is_dry_run, settings.budget.frontend_cpus
        self._models = [Workers(name, settings, server, report, clock=clock, start=start) for name in settings.models]

    def look(self) -> float:
        """Look once, do what is to be done, and return the seconds until the next look."""
        interval_s = self._settings.interval_s
        found, problem = _each(self._models, Workers.read)
        self._report.up("torchserve", problem)
        if not found:
            return interval_s
        counters = self._counters()
        for model in found:  # each claims what it is to get, for the next one to see
            model.decide(counters, most_workers(model, _others(model, found), self._cpus(), self._memory_bytes(found)))
        if self._is_dry_run:
            for model in found:
                model.tell_plan()
            return interval_s
        if self._resizer is not None and len(found) == len(self._models):
            self._resizer.reconcile(min(self._cpus(), claimed_cpus(found)) + self._frontend_cpus)
            interval_s = min(interval_s, max(_SETTLING_S, self._resizer.look_in_s))
        for model in found:
            model.claim_present()
        _, problem = _each(found, lambda model: model.act(self._fitting(model, found)))
        if problem is not None:
            self._report.up("torchserve", problem)
        return interval_s

    def _counters(self) -> Counters | None:
        try:
            counters = self._server.counters()
        except TorchServeError as error:
            self._report.up("metrics", f"{error}; the queue alone decides")
            return None
        self._report.up("metrics", None)
        return counters

    def _cpus(self) -> float:
        """Return the CPUs that all workers may take: as configured, else those there are."""
        most = self._settings.budget.max_cpus
        return (cpu_budget().cpus if most is None else most) - self._frontend_cpus

    def _memory_bytes(self, found: Sequence[Workers]) -> float | None:
        """Return the memory that all workers may take: as configured, else what there is; None where nobody knows."""
        settings = self._settings.budget
        if settings.memory_mb is not None:
            return (settings.memory_mb - settings.frontend_memory_mb) * MIB
        if self._resizer is None:
            return available_memory() + sum(model.num_claimed * model.memory_bytes for model in found)
        limit = self._resizer.memory_bytes
        return None if limit is None else limit - settings.frontend_memory_mb * MIB

    def _fitting(self, model: Workers, found: Sequence[Workers]) -> Limit:
        """Return the workers, up to those wanted, that the pod has CPUs for now; and what keeps it from having more."""
        wanted, present = (model.decision.workers if model.decision else 0), model.num_claimed
        if self._resizer is None or math.isinf(cpus := self._resizer.cpus) or wanted <= present:
            return Limit(wanted, "")
        others = _others(model, found)
        workers = min(wanted, most_workers(model, others, cpus - self._frontend_cpus).workers)
        if workers <= present:
            return Limit(present, f"{cpus:g} CPUs are in effect" if cpus else "the pod's CPUs are not known")
        quota = self._quota(model.name)
        needed = self._frontend_cpus + claimed_cpus(others) + workers * model.settings.cpus_per_worker
        if quota is not None and quota < needed - _QUOTA_SLACK:
            return Limit(present, f"the cgroup still has {quota:g} CPUs, and {needed:g} are needed")
        return Limit(workers, "")

    def _quota(self, model: str) -> float | None:
        """Return the CPU quota as a worker reads it in its own cgroup; None where none says so in time.

        A queue that is long can keep the question from being answered, and that is when workers are needed: then what
        the kubelet reports has to do.
        """
        try:
            said = self._server.describe_by_worker(model, {}, _QUOTA_TIMEOUT_S).get("cpu_quota")
        except TorchServeError as error:
            text = f"{model}: no worker says its CPU quota; the kubelet's word counts: {error}"
            self._report.tell(f"quota {model}", text)
            return None
        return float(said) if isinstance(said, (int, float)) else None


def _each(models: Sequence[Workers], do: Callable[[Workers], None]) -> tuple[list[Workers], str | None]:
    """Do something with each model; return those that TorchServe did it for, and what is wrong with another."""
    done, problem = [], None
    for model in models:
        try:
            do(model)
        except TorchServeError as error:  # noqa: PERF203  # the other models go on
            problem = str(error)
        else:
            done.append(model)
    return done, problem


def _others(model: Workers, found: Sequence[Workers]) -> list[Workers]:
    return [other for other in found if other is not model]
