"""The autoscalers that are compared, with the settings that configs/kubernetes ships and with others around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.simulation.cluster import Cluster, Platform, Service, ServiceRouter
from bench.simulation.day import Controller, Router, Scenario
from bench.simulation.hpa import CpuHpa, Keda, Limiter
from bench.simulation.kpa import Activator, Kpa
from bench.simulation.workers import WorkerAutoscaler
from ts_handlers.operate.autoscale.decide import Policy

POD_WORKERS = 2
MAX_POD_WORKERS = 4
MAX_CPUS = 24
ROUTING_SEED = 3

SIDECAR_CPUS, QUEUE_PROXY_CPUS = 0.1, 0.025
"""Of the worker autoscaler's container in each pod, and of Knative's by default."""

BATCH_TARGET, SINGLE_TARGET = 8.0, 1.0
"""Requests in flight for a worker: a batch, as shipped; one, where batches gain nothing."""

KPA, HPA, KEDA, WORKERS = "KPA", "HPA on CPU", "KEDA", "KEDA and worker autoscaler"

Triggers = Mapping[str, float]
"""Thresholds of the recorded queue depth and requests in flight, a pod."""

SHIPPED_TRIGGERS = {"queue": 2.0, "in flight": 1.4}
"""Of the keda component of configs/kubernetes, for pods of two workers."""

GROWN_TRIGGERS = {"queue": 4.0, "in flight": 2.8}
"""What `configure --kubernetes --max-cpus 4` writes: for what such pods have grown to."""

Parts = tuple[Cluster, Router, Sequence[Controller]]


@dataclass(frozen=True, slots=True)
class Scenarios:
    """Makes scenarios.

    Attributes:
        service: How long work takes.
        platform: What the cluster adds.
    """

    service: Service
    platform: Platform

    def shipped(self) -> list[Scenario]:
        """Return the four that are compared, as configs/kubernetes has them."""
        return [self.kpa(1.0), self.hpa(0.7), self.keda(SHIPPED_TRIGGERS), self.workers(SHIPPED_TRIGGERS)]

    def others(self) -> list[Scenario]:
        """Return other settings of these, smaller pods for the HPA, and ours where resizes are refused."""
        queues = [{"queue": threshold} for threshold in (0.5, 2.0, 8.0)]
        flights = [{"queue": 2.0, "in flight": threshold} for threshold in (0.7, 1.0)]
        ours: list[Triggers] = [*flights, SHIPPED_TRIGGERS, {"queue": 2.0, "in flight": 3.0}, {"queue": 2.0}]
        return [
            *(self.kpa(target) for target in (1.4, 2.0, 3.0)),
            *(self.hpa(target) for target in (0.3, 0.4, 0.5)),
            self.hpa(0.5, pod_workers=1),
            *(self.keda(triggers) for triggers in (*queues, *flights)),
            self.workers(GROWN_TRIGGERS),
            *(self.workers(triggers, SINGLE_TARGET) for triggers in ours),
            self.workers(SHIPPED_TRIGGERS, SINGLE_TARGET, refused=1.0),
        ]

    def kpa(self, target: float) -> Scenario:
        """Return Knative's autoscaler with a soft target of requests in flight."""

        def make() -> Parts:
            cluster = self._cluster(sidecar_cpus=QUEUE_PROXY_CPUS)
            activator = Activator(cluster)
            return cluster, activator, [Kpa(cluster, activator, target, MAX_CPUS // POD_WORKERS)]

        return Scenario(KPA, f"target {target:g} in flight", make)

    def hpa(self, target: float, pod_workers: int = POD_WORKERS) -> Scenario:
        """Return an HPA on CPU utilization."""

        def make() -> Parts:
            cluster = self._cluster(pod_workers)
            scaler = CpuHpa(cluster, target, Limiter(1, MAX_CPUS // pod_workers))
            return cluster, ServiceRouter(cluster, ROUTING_SEED), [scaler]

        size = "" if pod_workers == POD_WORKERS else f", pods of {pod_workers}"
        return Scenario(HPA, f"{target:.0%}{size}", make)

    def keda(self, triggers: Triggers) -> Scenario:
        """Return KEDA on the recorded queries."""

        def make() -> Parts:
            cluster = self._cluster()
            keda = Keda(cluster, triggers, Limiter(1, MAX_CPUS // POD_WORKERS))
            return cluster, ServiceRouter(cluster, ROUTING_SEED), [keda]

        return Scenario(KEDA, _shown(triggers), make)

    def workers(self, triggers: Triggers, target: float = BATCH_TARGET, *, refused: float = 0.0) -> Scenario:
        """Return KEDA for the pods and the worker autoscaler within them."""
        policy = Policy(max_workers=MAX_POD_WORKERS, target_in_flight=target)

        def make() -> Parts:
            cluster = self._cluster(sidecar_cpus=SIDECAR_CPUS)
            keda = Keda(cluster, triggers, Limiter(1, MAX_CPUS // MAX_POD_WORKERS))
            workers = WorkerAutoscaler(cluster, policy, refused_share=refused)
            return cluster, ServiceRouter(cluster, ROUTING_SEED), [keda, workers]

        refusals = f", {refused:.0%} of resizes refused" if refused else ""
        return Scenario(WORKERS, f"{_shown(triggers)}; worker {target:g}{refusals}", make)

    def _cluster(self, pod_workers: int = POD_WORKERS, sidecar_cpus: float = 0.0) -> Cluster:
        return Cluster(self.service, self.platform, pod_workers=pod_workers, sidecar_cpus=sidecar_cpus)


def _shown(triggers: Triggers) -> str:
    return ", ".join(f"{name} {threshold:g}" for name, threshold in triggers.items())
