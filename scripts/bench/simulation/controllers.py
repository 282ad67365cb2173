"""The HPA at work: on CPU, and on a recorded Prometheus query as KEDA has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.simulation.cluster import Cluster
from bench.simulation.hpa import SYNC_SECONDS, Behavior, Limiter, PodCpu, replicas_by_cpu, replicas_by_external
from bench.simulation.pod import Pod
from bench.simulation.scraping import QueueRule

SYNC_OFFSET_SECONDS = 7
"""Metrics are half a period old when the HPA looks at them: the two run apart."""

METRICS_SECONDS = 15
"""metrics-server's resolution, and the window of its CPU samples."""


class Controller(Protocol):
    """Something that scales."""

    def step(self, now: float) -> None:
        """Do what there is to do at `now`; called every second, once everything is settled."""


class CpuHpa:
    """An HPA with a ContainerResource metric, CPU utilization of the requests.

    Args:
        cluster: What it scales.
        target: Utilization, 0.7 for 70 %.
        minimum: Least replicas.
        maximum: Most replicas.
        behavior: How fast it may change them.
    """

    def __init__(
        self, cluster: Cluster, *, target: float, minimum: int, maximum: int, behavior: Behavior | None = None
    ) -> None:
        self._cluster, self._target = cluster, target
        self._limiter = Limiter(behavior or Behavior(), minimum, maximum)
        self._busy: dict[int, float] = {}
        self._sampled: dict[int, tuple[float, float]] = {}

    def step(self, now: float) -> None:
        """Sample the pods' CPU, or decide, if it is time."""
        if now % METRICS_SECONDS == 0:
            self._sample(now)
        if now % SYNC_SECONDS != SYNC_OFFSET_SECONDS:
            return
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
        sampled, utilization = self._sampled.get(pod.number, (None, 0.0))
        return PodCpu(
            started=started if started <= now else None,
            is_ready=is_ready,
            changed=pod.ready if is_ready else started,
            sampled=sampled,
            window_seconds=METRICS_SECONDS,
            utilization=utilization,
        )

    def _started(self, pod: Pod) -> float:
        return min(pod.ready, pod.created + self._cluster.platform.schedule_seconds)


class Keda:
    """KEDA with a prometheus trigger, AverageValue: an HPA on an external metric.

    Between one and many replicas it is the HPA that asks, every 15 s; KEDA's pollingInterval and cooldownPeriod matter for
    the step from and to zero only, which counters of the pods themselves cannot wake anyway. (Source: KEDA's documentation,
    "ScaledObject specification" and "Scaling Deployments".) Without a value the HPA does nothing.

    Args:
        cluster: What it scales.
        triggers: Recorded queries and their thresholds, a pod; the one that wants most pods counts.
        minimum: minReplicaCount.
        maximum: maxReplicaCount.
        behavior: How fast it may change them.
    """

    def __init__(
        self,
        cluster: Cluster,
        triggers: Sequence[tuple[QueueRule, float]],
        *,
        minimum: int,
        maximum: int,
        behavior: Behavior | None = None,
    ) -> None:
        self._cluster, self._triggers = cluster, triggers
        self._limiter = Limiter(behavior or Behavior(), minimum, maximum)

    def step(self, now: float) -> None:
        """Scrape, evaluate, decide, each if it is time."""
        for rule, _ in self._triggers:
            rule.step(now)
        if now % SYNC_SECONDS != SYNC_OFFSET_SECONDS:
            return
        replicas = self._cluster.replicas
        wanted = [
            replicas_by_external(rule.value, replicas, threshold)
            for rule, threshold in self._triggers
            if rule.value is not None
        ]
        if wanted:
            self._cluster.scale(self._limiter.limit(now, replicas, max(wanted)), now)


class Both:
    """Two controllers of one cluster, in order."""

    def __init__(self, *controllers: Controller) -> None:
        self._controllers = controllers

    def step(self, now: float) -> None:
        """Let each do what there is to do."""
        for controller in self._controllers:
            controller.step(now)
