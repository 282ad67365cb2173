"""Kubernetes' HorizontalPodAutoscaler (autoscaling/v2): on CPU, and on recorded Prometheus queries as KEDA has it.

Sources: Kubernetes' documentation, "Horizontal Pod Autoscaling" (algorithm, stabilization, policies, defaults), and
kubernetes/kubernetes, pkg/controller/podautoscaler: replica_calculator.go for how unready pods and pods without a
sample count, horizontal.go for how policies and stabilization limit the result. Prometheus' documentation of rate(), and
extrapolatedRate in promql/functions.go. KEDA's documentation, "ScaledObject specification" and "Scaling Deployments".
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.simulation.cluster import Cluster
from bench.simulation.pod import Pod

SYNC_SECONDS = 15
SYNC_OFFSET_SECONDS = 7
"""Metrics are half a period old when the HPA looks at them: the two run apart."""

METRICS_SECONDS = 15
"""metrics-server's resolution and the window of its CPU samples; also Prometheus' scrapes and rules."""

RATE_SECONDS = 60
EXTRAPOLATION_FACTOR = 1.1
TOLERANCE = 0.1
CPU_INITIALIZATION_SECONDS = 300
INITIAL_READINESS_DELAY_SECONDS = 30

_REMEMBERED = 200
"""Decisions that are remembered: those of 50 minutes."""


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


UP, DOWN = (Policy("Percent", 100, 30), Policy("Pods", 2, 30)), (Policy("Pods", 1, 60),)
"""spec.behavior of the hpa and keda components of configs/kubernetes."""


class Limiter:
    """spec.behavior at work: it remembers what was recommended and what was done.

    Args:
        minimum: Fewest pods.
        maximum: Most.
        up: How fast there may be more; of several policies the one that changes most applies.
        down: How fast there may be fewer.
        stabilization_seconds: Fewer only if that was recommended for so long.
    """

    def __init__(
        self,
        minimum: int,
        maximum: int,
        up: Sequence[Policy] = UP,
        down: Sequence[Policy] = DOWN,
        stabilization_seconds: int = 300,
    ) -> None:
        self._minimum, self._maximum, self._up, self._down = minimum, maximum, up, down
        self._stabilization_seconds = stabilization_seconds
        self._recommended: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self._changes: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)

    def limit(self, now: float, replicas: int, wanted: int) -> int:
        """Return what becomes of a recommendation, and remember both."""
        self._recommended.append((now, wanted))
        recent = [one for time, one in self._recommended if time > now - self._stabilization_seconds]
        stable = min(max(replicas, wanted), max((wanted, *recent)))
        stable = min(max(stable, self._minimum), self._maximum)
        if stable > replicas:
            stable = min(stable, max(self._reach(policy, now, replicas, 1) for policy in self._up))
        elif stable < replicas:
            stable = max(stable, min(self._reach(policy, now, replicas, -1) for policy in self._down))
        if stable != replicas:
            self._changes.append((now, stable - replicas))
        return stable

    def _reach(self, policy: Policy, now: float, replicas: int, sign: int) -> int:
        """Return how many pods a policy allows, up (1) or down (-1), from those at the beginning of its period."""
        before = replicas - sum(change for time, change in self._changes if time > now - policy.period_seconds)
        if policy.kind == "Pods":
            return before + sign * policy.value
        return (math.ceil if sign > 0 else math.floor)(before * (1 + sign * policy.value / 100))


@dataclass(frozen=True, slots=True)
class PodCpu:
    """What the HPA knows of a pod.

    Attributes:
        started: When its container started; None while it is pending.
        is_ready: Its Ready condition.
        changed: When that condition last changed.
        sampled: End of the window of its CPU sample; None without a sample.
        utilization: CPU used in it over CPU requested.
    """

    started: float | None
    is_ready: bool
    changed: float
    sampled: float | None
    utilization: float

    def is_ignored(self, now: float) -> bool:
        """Say whether the pod's CPU says nothing yet: it is pending, or still starting."""
        if self.started is None:
            return True
        if self.sampled is None:
            return False
        if self.started + CPU_INITIALIZATION_SECONDS > now:
            return not self.is_ready or self.sampled < self.changed + METRICS_SECONDS
        return not self.is_ready and self.started + INITIAL_READINESS_DELAY_SECONDS > self.changed


def replicas_by_cpu(pods: Sequence[PodCpu], replicas: int, target: float, now: float) -> int:
    """Return the replicas that bring mean CPU utilization to `target`.

    Pods that are not ready yet count as idle when it is about more, and pods without a sample as busy when it is about
    fewer; a result that turns the direction around is none.
    """
    counted = [pod for pod in pods if not pod.is_ignored(now)]
    num_ignored, num_missing = len(pods) - len(counted), sum(pod.sampled is None for pod in counted)
    known = [pod.utilization for pod in counted if pod.sampled is not None]
    if not known:
        return replicas
    ratio = sum(known) / len(known) / target
    if not num_missing and not (num_ignored and ratio > 1.0):
        return replicas if abs(1.0 - ratio) <= TOLERANCE else math.ceil(ratio * len(known))
    known += [1.0 if ratio < 1.0 else 0.0] * num_missing
    known += [0.0] * (num_ignored if ratio > 1.0 else 0)
    again = sum(known) / len(known) / target
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    wanted = math.ceil(again * len(known))
    if abs(1.0 - again) <= TOLERANCE or turned or (wanted > replicas if again < 1.0 else wanted < replicas):
        return replicas
    return wanted


def replicas_by_external(total: float, replicas: int, average: float) -> int:
    """Return the replicas for an external metric with an AverageValue: its total over that, unless it is near enough."""
    return replicas if abs(1.0 - total / (average * replicas)) <= TOLERANCE else math.ceil(total / average)


class CpuHpa:
    """An HPA with a ContainerResource metric, CPU utilization of the requests.

    Args:
        cluster: What it scales.
        target: Utilization, 0.7 for 70 %.
        limiter: How far, and how fast.
    """

    def __init__(self, cluster: Cluster, target: float, limiter: Limiter) -> None:
        self._cluster, self._target, self._limiter = cluster, target, limiter
        self._busy: dict[int, float] = {}
        self._sampled: dict[int, tuple[float, float]] = {}

    def step(self, now: float) -> None:
        """Sample the pods' CPU, or decide, if it is time."""
        if now % METRICS_SECONDS == 0:
            self._sample(now)
        if now % SYNC_SECONDS == SYNC_OFFSET_SECONDS:
            replicas = self._cluster.replicas
            pods = [self._seen(pod, now) for pod in self._cluster.live_pods()]
            wanted = replicas_by_cpu(pods, replicas, self._target, now)
            self._cluster.scale(self._limiter.limit(now, replicas, wanted), now)

    def _sample(self, now: float) -> None:
        busy, sampled = {}, {}
        for pod in self._cluster.pods:
            busy[pod.number] = pod.busy_seconds(now)
            if pod.number in self._busy and self._started(pod) <= now - METRICS_SECONDS:
                used = busy[pod.number] - self._busy[pod.number]
                sampled[pod.number] = (now, used / METRICS_SECONDS / pod.cpus)
        self._busy, self._sampled = busy, sampled

    def _seen(self, pod: Pod, now: float) -> PodCpu:
        started, is_ready = self._started(pod), pod.is_ready(now)
        changed = pod.ready if is_ready else started
        sampled, utilization = self._sampled.get(pod.number, (None, 0.0))
        return PodCpu(started if started <= now else None, is_ready, changed, sampled, utilization)

    def _started(self, pod: Pod) -> float:
        return min(pod.ready, pod.created + self._cluster.platform.schedule_seconds)


def rate(times: Sequence[float], values: Sequence[float], now: float) -> float | None:
    """Return the increase a second of a counter over the RATE_SECONDS up to `now`; None with fewer than two samples.

    It is the increase between the first and the last sample of the window, extrapolated to its ends, but by no more than
    half a mean interval where a sample is further from an end than 1.1 intervals, and never below zero.

    Args:
        times: Of the samples, ascending.
        values: Of the counter, which starts at zero and is never reset here.
        now: End of the window.
    """
    start = now - RATE_SECONDS
    first, end = bisect_right(times, start), bisect_right(times, now)
    if end - first < 2:
        return None
    last = end - 1
    increase, sampled = values[last] - values[first], times[last] - times[first]
    interval = sampled / (last - first)
    to_start, to_end = times[first] - start, now - times[last]
    if increase > 0:
        to_start = min(to_start, sampled * values[first] / increase)
    to_start, to_end = (
        interval / 2 if part >= interval * EXTRAPOLATION_FACTOR else part for part in (to_start, to_end)
    )
    return increase * (sampled + to_start + to_end) / sampled / RATE_SECONDS


class QueueRule:
    """The recorded sum over the pods of rate(counter[1m]): queue depth, or requests in flight, by Little's law.

    The counters hold summed times of requests and move when a request is complete, so this says what was, not what is: a
    pod whose queue has just filled shows nothing until those requests are done.

    Args:
        cluster: The pods; each has an offset of its own to its scrapes.
        counter: The summed seconds of a pod.
    """

    def __init__(self, cluster: Cluster, counter: Callable[[Pod], float]) -> None:
        self._cluster, self._counter = cluster, counter
        self._samples: dict[int, deque[tuple[float, float]]] = {}
        self.value: float | None = None

    def step(self, now: float) -> None:
        """Scrape the pods whose turn it is, and evaluate the rule if it is time."""
        for pod in self._cluster.pods:
            if pod.ready <= now and (now + 7 * pod.number) % METRICS_SECONDS == 0:
                samples = self._samples.setdefault(pod.number, deque(maxlen=RATE_SECONDS // METRICS_SECONDS + 1))
                samples.append((now, self._counter(pod)))
        if now % METRICS_SECONDS == 0:
            rates = [
                rate([time for time, _ in one], [value for _, value in one], now) for one in self._samples.values()
            ]
            known = [found for found in rates if found is not None]
            self.value = sum(known) if known else None


COUNTERS: Mapping[str, Callable[[Pod], float]] = {
    "queue": lambda pod: pod.queue_seconds,
    "in flight": lambda pod: pod.latency_seconds,
}
"""What a trigger is called -> the counter that its query is about."""


class Keda:
    """KEDA with prometheus triggers, AverageValue: an HPA on external metrics.

    Between one and many replicas it is the HPA that asks, every 15 s; KEDA's pollingInterval and cooldownPeriod matter for
    the step from and to zero only, which counters of the pods themselves cannot wake anyway. Without a value the HPA does
    nothing.

    Args:
        cluster: What it scales.
        triggers: Name of a counter -> threshold, a pod; the one that wants most pods counts.
        limiter: How far, and how fast.
    """

    def __init__(self, cluster: Cluster, triggers: Mapping[str, float], limiter: Limiter) -> None:
        self._cluster, self._limiter = cluster, limiter
        self._rules = [(QueueRule(cluster, COUNTERS[name]), threshold) for name, threshold in triggers.items()]

    def step(self, now: float) -> None:
        """Scrape, evaluate, decide, each if it is time."""
        for rule, _ in self._rules:
            rule.step(now)
        if now % SYNC_SECONDS == SYNC_OFFSET_SECONDS:
            replicas = self._cluster.replicas
            values = [(rule.value, threshold) for rule, threshold in self._rules if rule.value is not None]
            wanted = [replicas_by_external(value, replicas, threshold) for value, threshold in values]
            if wanted:
                self._cluster.scale(self._limiter.limit(now, replicas, max(wanted)), now)
