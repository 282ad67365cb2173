"""Bring the pod to the CPUs that its workers need, as far as the cluster lets it, and say what it lets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ts_handlers.operate.autoscale.pod import ContainerCpus, Pod, PodError
from ts_handlers.operate.autoscale.report import Report

_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 300.0
_REFUSED_RETRY_S = 30.0
"""An infeasible size is asked for again after so long, then after twice as long: the node may have grown."""

_SETTLED_S, _DEFERRED_S = 30.0, 5.0
"""The pod is looked at so often where nothing is wanted of it, and while a resize waits for room."""

_SAME = 0.0005
"""Kubernetes counts CPUs in thousandths."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the pod has.

    Attributes:
        cpus: CPUs in effect; infinite where the container has no limit, 0 while nobody knows.
        look_in_s: When it is worth looking again; 0 while a resize is under way.
        memory_bytes: The container's memory limit; None where it has none or nobody knows.
    """

    cpus: float
    look_in_s: float = _SETTLED_S
    memory_bytes: float | None = None


class Resizer:
    """Reconciles the pod, call by call; it never waits.

    Args:
        pod: The pod.
        clock: Seconds.
        report: Where changes are told.
    """

    def __init__(self, pod: Pod, clock: Callable[[], float], report: Report) -> None:
        self._pod, self._clock, self._report = pod, clock, report
        self._grant = Grant(0.0)
        self._look_at = -math.inf
        self._asked: float | None = None
        self._failures = 0
        self._refused: float | None = None
        self._num_refused, self._refused_until = 0, -math.inf

    def reconcile(self, wanted: float) -> Grant:
        """Ask for so many CPUs where the pod has not got them, and return what is in effect."""
        is_new = self._asked is None or abs(wanted - self._asked) > _SAME
        if self._clock() < self._look_at and (self._failures or not is_new):
            return self._grant
        try:
            self._grant = self._step(self._pod.read(), wanted)
        except PodError as error:
            self._failed(error)
        else:
            self._failures = 0
            self._look_at = self._clock() + self._grant.look_in_s
            self._asked = wanted
            self._report.up("kubernetes", None)
        self._report.cpus(wanted, self._grant.cpus)
        return self._grant

    def _step(self, now: ContainerCpus, wanted: float) -> Grant:
        if now.limit is None:
            self._report.tell("resize", f"{self._pod.describe()} has no CPU limit, so there is nothing to resize")
            return Grant(math.inf, memory_bytes=now.memory_bytes)
        in_effect = now.limit if now.in_effect is None else now.in_effect
        grant = Grant(in_effect, memory_bytes=now.memory_bytes)
        if abs(now.limit - wanted) > _SAME:
            if self._is_refused(wanted, in_effect):
                return grant
            self._pod.resize(wanted)
            self._report.tell(
                "resize", f"asked for {wanted:g} CPUs for {self._pod.describe()}; {in_effect:g} in effect"
            )
            return replace(grant, look_in_s=0.0)
        if now.waiting == "Infeasible":
            self._refuse(now, wanted, in_effect)
            return grant
        if now.waiting is not None:
            room = now.message or "the node has no room now"
            self._warn(
                now.waiting.lower(), f"{wanted:g} CPUs are deferred: {room}; {in_effect:g} stay in effect until then"
            )
            return replace(grant, look_in_s=_DEFERRED_S)
        if now.progress == "Error":
            self._warn("error", f"the resize to {wanted:g} CPUs fails: {now.message}; {in_effect:g} are in effect")
            return replace(grant, look_in_s=_DEFERRED_S)
        if now.progress is not None or abs(in_effect - wanted) > _SAME:
            return replace(grant, look_in_s=0.0)
        self._num_refused = 0
        self._report.tell("resize", f"{self._pod.describe()} has {in_effect:g} CPUs")
        return grant

    def _refuse(self, now: ContainerCpus, wanted: float, in_effect: float) -> None:
        """Take an infeasible request back, so that the pod's spec says what it has, and do not repeat it for a while."""
        self._refused = wanted
        retry_s = min(_LONGEST_RETRY_S, _REFUSED_RETRY_S * 2**self._num_refused)
        self._num_refused += 1
        self._refused_until = self._clock() + retry_s
        why = now.message or "the node can never give them"
        self._warn("infeasible", f"{wanted:g} CPUs are infeasible: {why}; {in_effect:g} stay in effect")
        self._pod.resize(in_effect)

    def _is_refused(self, wanted: float, in_effect: float) -> bool:
        """Say whether so many CPUs, or fewer, were infeasible a short while ago."""
        if self._refused is None or self._clock() >= self._refused_until:
            return False
        return wanted > in_effect + _SAME and wanted >= self._refused - _SAME

    def _failed(self, error: PodError) -> None:
        self._look_at = self._clock() + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**self._failures)
        self._failures += 1
        self._report.up("kubernetes", f"{error}; the pod keeps its size")
        self._report.count_resize(error.failure)
        self._grant = replace(self._grant, look_in_s=_SETTLED_S)

    def _warn(self, label: str, text: str) -> None:
        if self._report.tell("resize", text, is_problem=True):
            self._report.count_resize(label)
