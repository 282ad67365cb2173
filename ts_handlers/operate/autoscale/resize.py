"""Bring the pod to the CPUs that its workers need, as far as the cluster lets it, and say what it lets."""

from __future__ import annotations

import math
from collections.abc import Callable

from ts_handlers.operate.autoscale.pod import Container, Pod, PodError
from ts_handlers.operate.autoscale.report import Report

_FIRST_RETRY_S, _REFUSED_RETRY_S, _LONGEST_RETRY_S = 2.0, 30.0, 300.0
"""What has failed, and what was infeasible, is tried again after so long, then after twice as long: the node may grow."""

_SETTLED_S, _DEFERRED_S = 30.0, 5.0
"""The pod is looked at so often where nothing is wanted of it, and while a resize waits for room."""

_SAME = 0.0005
"""Kubernetes counts CPUs in thousandths."""


class Resizer:
    """Reconciles the pod, call by call; it never waits.

    Attributes:
        cpus: CPUs in effect; infinite where the container has no limit, 0 while nobody knows.
        memory_bytes: The container's memory limit; None where it has none or nobody knows.
        look_in_s: When it is worth looking again; 0 while a resize is under way.

    Args:
        pod: The pod.
        clock: Seconds.
        report: Where changes are told.
    """

    def __init__(self, pod: Pod, clock: Callable[[], float], report: Report) -> None:
        self._pod, self._clock, self._report = pod, clock, report
        self.cpus = 0.0
        self.memory_bytes: float | None = None
        self.look_in_s = _SETTLED_S
        self._look_at = -math.inf
        self._asked: float | None = None
        self._num_failures = 0
        self._refused, self._num_refused, self._refused_until = math.inf, 0, -math.inf

    def reconcile(self, wanted: float) -> None:
        """Ask for so many CPUs where the pod has not got them, and keep what is in effect."""
        is_new = self._asked is None or abs(wanted - self._asked) > _SAME
        if self._clock() < self._look_at and (self._num_failures or not is_new):
            return
        try:
            self.look_in_s = self._step(self._pod.read(), wanted)
        except PodError as error:
            self._look_at = self._clock() + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**self._num_failures)
            self._num_failures += 1
            self.look_in_s = _SETTLED_S
            self._report.up("kubernetes", f"{error}; the pod keeps its size")
            self._report.count("resize_failures", error.failure)
        else:
            self._look_at = self._clock() + self.look_in_s
            self._num_failures, self._asked = 0, wanted
            self._report.up("kubernetes", None)
        self._report.set("cpus", wanted, "wanted")
        self._report.set("cpus", self.cpus, "in_effect")

    def _step(self, now: Container, wanted: float) -> float:
        """Do what is to be done next; return the seconds until the next look."""
        self.memory_bytes = now.memory_bytes
        if now.limit is None:
            self.cpus = math.inf
            self._report.tell("resize", f"{self._pod} has no CPU limit, so there is nothing to resize")
            return _SETTLED_S
        self.cpus = now.limit if now.in_effect is None else now.in_effect
        if abs(now.limit - wanted) > _SAME:
            if self._is_refused(wanted):
                return _SETTLED_S
            self._pod.resize(wanted)
            self._report.tell("resize", f"asked for {wanted:g} CPUs for {self._pod}; {self.cpus:g} in effect")
            return 0.0
        if now.resizing == "infeasible":
            self._take_back(now.message or "the node can never give them", wanted)
            return _SETTLED_S
        if now.resizing == "deferred":
            room = now.message or "the node has no room now"
            self._warn("deferred", f"{wanted:g} CPUs are deferred: {room}; {self.cpus:g} stay in effect until then")
            return _DEFERRED_S
        if now.resizing == "error":
            self._warn("error", f"the resize to {wanted:g} CPUs fails: {now.message}; {self.cpus:g} are in effect")
            return _DEFERRED_S
        if now.resizing is not None or abs(self.cpus - wanted) > _SAME:
            return 0.0
        self._num_refused = 0
        self._report.tell("resize", f"{self._pod} has {self.cpus:g} CPUs")
        return _SETTLED_S

    def _take_back(self, why: str, wanted: float) -> None:
        """Take an infeasible request back, so that the pod's spec says what it has, and do not repeat it for a while."""
        retry_s = min(_LONGEST_RETRY_S, _REFUSED_RETRY_S * 2**self._num_refused)
        self._num_refused += 1
        self._refused, self._refused_until = wanted, self._clock() + retry_s
        self._warn("infeasible", f"{wanted:g} CPUs are infeasible: {why}; {self.cpus:g} stay in effect")
        self._pod.resize(self.cpus)

    def _is_refused(self, wanted: float) -> bool:
        """Say whether so many CPUs, or fewer, were infeasible a short while ago."""
        if self._clock() >= self._refused_until:
            return False
        return wanted > self.cpus + _SAME and wanted >= self._refused - _SAME

    def _warn(self, label: str, text: str) -> None:
        if self._report.tell("resize", text, is_problem=True):
            self._report.count("resize_failures", label)
