"""Kubernetes' HorizontalPodAutoscaler (autoscaling/v2): replicas from CPU or from an external metric, and its behavior.

Sources: Kubernetes' documentation, "Horizontal Pod Autoscaling" (algorithm, stabilization, policies, defaults), and
kubernetes/kubernetes, pkg/controller/podautoscaler: replica_calculator.go for how unready pods and pods without a
sample count, horizontal.go for how policies and stabilization limit the result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SYNC_SECONDS = 15
TOLERANCE = 0.1
CPU_INITIALIZATION_SECONDS = 300
INITIAL_READINESS_DELAY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Policy:
    """How much may change in a period.

    Attributes:
        kind: `Pods` or `Percent`.
        value: Pods, or percent of what there was at the beginning of the period.
        period_seconds: Its length.
    """

    kind: str
    value: int
    period_seconds: int


@dataclass(frozen=True, slots=True)
class Behavior:
    """spec.behavior; the defaults are Kubernetes' own. Of several policies the one that changes most applies."""

    up_stabilization_seconds: int = 0
    down_stabilization_seconds: int = 300
    up: tuple[Policy, ...] = (Policy("Percent", 100, 15), Policy("Pods", 4, 15))
    down: tuple[Policy, ...] = (Policy("Percent", 100, 15),)


@dataclass(frozen=True, slots=True)
class PodCpu:
    """What the HPA knows of a pod.

    Attributes:
        started: When its container started; None while it is pending.
        is_ready: Its Ready condition.
        changed: When that condition last changed.
        sampled: End of the window of its CPU sample; None without a sample.
        window_seconds: Length of that window.
        utilization: CPU used in it over CPU requested.
    """

    started: float | None
    is_ready: bool
    changed: float
    sampled: float | None
    window_seconds: float
    utilization: float


def replicas_by_cpu(pods: Sequence[PodCpu], replicas: int, target: float, now: float) -> int:
    """Return the replicas that bring mean CPU utilization to `target`.

    Pods that are not ready yet count as idle when it is about more, and pods without a sample as busy when it is about
    fewer; a result that turns the direction around is none.
    """
    ignored = [pod for pod in pods if _is_ignored(pod, now)]
    missing = [pod for pod in pods if pod.sampled is None and pod not in ignored]
    known = [pod.utilization for pod in pods if pod.sampled is not None and pod not in ignored]
    if not known:
        return replicas
    ratio = sum(known) / len(known) / target
    count_ignored = bool(ignored) and ratio > 1.0
    if not count_ignored and not missing:
        return replicas if abs(1.0 - ratio) <= TOLERANCE else math.ceil(ratio * len(known))
    known += [1.0 if ratio < 1.0 else 0.0] * len(missing)
    known += [0.0] * len(ignored) if count_ignored else []
    again = sum(known) / len(known) / target
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    wanted = math.ceil(again * len(known))
    if abs(1.0 - again) <= TOLERANCE or turned or (wanted > replicas if again < 1.0 else wanted < replicas):
        return replicas
    return wanted


def replicas_by_external(total: float, replicas: int, average: float) -> int:
    """Return the replicas for an external metric with an AverageValue: its total over that, unless it is near enough."""
    ratio = total / (average * replicas)
    return replicas if abs(1.0 - ratio) <= TOLERANCE else math.ceil(total / average)


class Limiter:
    """spec.behavior at work: it remembers what was recommended and what was done."""

    def __init__(self, behavior: Behavior, minimum: int, maximum: int) -> None:
        self._behavior, self._minimum, self._maximum = behavior, minimum, maximum
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def limit(self, now: float, replicas: int, wanted: int) -> int:
        """Return what becomes of a recommendation, and remember both."""
        behavior = self._behavior
        self._recommended.append((now, wanted))
        up = self._recent(now, behavior.up_stabilization_seconds)
        down = self._recent(now, behavior.down_stabilization_seconds)
        stable = min(max(replicas, min(up)), max(down))
        stable = min(max(stable, self._minimum), self._maximum)
        if stable > replicas:
            stable = min(stable, max(self._most(policy, now, replicas) for policy in behavior.up))
        elif stable < replicas:
            stable = max(stable, min(self._fewest(policy, now, replicas) for policy in behavior.down))
        if stable != replicas:
            self._changes.append((now, stable - replicas))
        self._forget(now)
        return stable

    def _recent(self, now: float, seconds: float) -> list[int]:
        return [wanted for time, wanted in self._recommended if time > now - seconds or time == now]

    def _most(self, policy: Policy, now: float, replicas: int) -> int:
        before = replicas - sum(change for time, change in self._within(policy, now))
        return before + policy.value if policy.kind == "Pods" else math.ceil(before * (1 + policy.value / 100))

    def _fewest(self, policy: Policy, now: float, replicas: int) -> int:
        before = replicas - sum(change for time, change in self._within(policy, now))
        return before - policy.value if policy.kind == "Pods" else math.floor(before * (1 - policy.value / 100))

    def _within(self, policy: Policy, now: float) -> list[tuple[float, int]]:
        return [(time, change) for time, change in self._changes if time > now - policy.period_seconds]

    def _forget(self, now: float) -> None:
        kept = 2 * max(self._behavior.down_stabilization_seconds, self._behavior.up_stabilization_seconds, 1800)
        for remembered in (self._recommended, self._changes):
            while remembered and remembered[0][0] < now - kept:
                remembered.popleft()


def _is_ignored(pod: PodCpu, now: float) -> bool:
    """Say whether the pod's CPU says nothing yet: it is pending, or still starting."""
    if pod.started is None:
        return True
    if pod.sampled is None:
        return False
    if pod.started + CPU_INITIALIZATION_SECONDS > now:
        return not pod.is_ready or pod.sampled < pod.changed + pod.window_seconds
    return not pod.is_ready and pod.started + INITIAL_READINESS_DELAY_SECONDS > pod.changed
