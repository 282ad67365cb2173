"""The autoscalers that are compared, with the settings that configs/kubernetes ships and with others around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.simulation.cluster import Cluster
from bench.simulation.controllers import Both, Controller, CpuHpa, Keda
from bench.simulation.hpa import Behavior, Policy
from bench.simulation.kpa import Kpa, KpaSettings
from bench.simulation.routing import Activator, Router, ServiceRouter
from bench.simulation.run import Scenario
from bench.simulation.scraping import QueueRule
from bench.simulation.service import Platform, Service
from bench.simulation.workers import WorkerAutoscaler
from ts_handlers.operate.autoscale.decide import Policy as WorkerPolicy

POD_WORKERS = 2
MAX_POD_WORKERS = 4
MAX_CPUS = 24
ROUTING_SEED = 3

SIDECAR_CPUS = 0.1
"""Of the worker autoscaler's container in each pod."""

QUEUE_PROXY_CPUS = 0.025
"""Of Knative's container in each pod, by default."""

BATCH_TARGET, SINGLE_TARGET = 8.0, 1.0
"""Requests in flight for a worker: a batch, as shipped; one, where batches gain nothing."""

SHIPPED = Behavior(
    up=(Policy("Percent", 100, 30), Policy("Pods", 2, 30)),
    down=(Policy("Pods", 1, 60),),
)
"""spec.behavior of the hpa and keda components of configs/kubernetes."""

KPA, HPA, KEDA, WORKERS = "KPA", "HPA on CPU", "KEDA", "KEDA and worker autoscaler"


@dataclass(frozen=True, slots=True)
class Triggers:
    """Thresholds of the recorded queue depth and requests in flight, a pod; None: no such trigger."""

    queue: float | None
    in_flight: float | None

    def __str__(self) -> str:
        named = (("queue", self.queue), ("in flight", self.in_flight))
        return ", ".join(f"{name} {threshold:g}" for name, threshold in named if threshold is not None)

    def rules(self, cluster: Cluster) -> list[tuple[QueueRule, float]]:
        """Return the queries with their thresholds."""
        counters = (("queue_seconds", self.queue), ("latency_seconds", self.in_flight))
        return [(QueueRule(cluster, counter), threshold) for counter, threshold in counters if threshold is not None]


SHIPPED_TRIGGERS = Triggers(queue=2.0, in_flight=1.4)
"""Of the keda component of configs/kubernetes, for pods of two workers."""

GROWN_TRIGGERS = Triggers(queue=4.0, in_flight=2.8)
"""What `configure --kubernetes --max-cpus 4` writes: for what such pods have grown to."""

Parts = tuple[Cluster, Router, Controller]


class Scenarios:
    """Makes scenarios for one server and one platform."""

    def __init__(self, service: Service, platform: Platform) -> None:
        self._service, self._platform = service, platform

    def shipped(self) -> list[Scenario]:
        """Return the four that are compared, as configs/kubernetes has them."""
        return [self.kpa(1.0), self.hpa(0.7), self.keda(SHIPPED_TRIGGERS), self.workers(SHIPPED_TRIGGERS)]

    def others(self) -> list[Scenario]:
        """Return other settings of these, smaller pods for the HPA, and ours where resizes are refused."""
        kpas = [self.kpa(target) for target in (1.4, 2.0, 3.0)]
        hpas = [self.hpa(target) for target in (0.3, 0.4, 0.5)]
        queues = [Triggers(threshold, None) for threshold in (0.5, 2.0, 8.0)]
        flights = [Triggers(2.0, threshold) for threshold in (0.7, 1.0)]
        ours = [*flights, SHIPPED_TRIGGERS, Triggers(2.0, 3.0), Triggers(2.0, None)]
        return [
            *kpas,
            *hpas,
            self.hpa(0.5, pod_workers=1),
            *(self.keda(triggers) for triggers in (*queues, *flights)),
            self.workers(GROWN_TRIGGERS),
            *(self.workers(triggers, SINGLE_TARGET) for triggers in ours),
            self.workers(SHIPPED_TRIGGERS, SINGLE_TARGET, refused=1.0),
        ]

    def kpa(self, target: float) -> Scenario:
        """Return Knative's autoscaler with a soft target of requests in flight."""
        settings = replace(KpaSettings(), target=target, max_scale=MAX_CPUS // POD_WORKERS)

        def make() -> Parts:
            cluster = self._cluster(sidecar_cpus=QUEUE_PROXY_CPUS)
            activator = Activator(cluster, settings.container_concurrency)
            return cluster, activator, Kpa(settings, cluster, activator)

        return Scenario(KPA, f"target {target:g} in flight", make)

    def hpa(self, target: float, pod_workers: int = POD_WORKERS) -> Scenario:
        """Return an HPA on CPU utilization."""

        def make() -> Parts:
            cluster = self._cluster(pod_workers)
            scaler = CpuHpa(cluster, target=target, minimum=1, maximum=MAX_CPUS // pod_workers, behavior=SHIPPED)
            return cluster, ServiceRouter(cluster, ROUTING_SEED), scaler

        size = "" if pod_workers == POD_WORKERS else f", pods of {pod_workers}"
        return Scenario(HPA, f"{target:.0%}{size}", make)

    def keda(self, triggers: Triggers) -> Scenario:
        """Return KEDA on the recorded queries."""

        def make() -> Parts:
            cluster = self._cluster()
            return cluster, ServiceRouter(cluster, ROUTING_SEED), _keda(cluster, triggers, POD_WORKERS)

        return Scenario(KEDA, str(triggers), make)

    def workers(self, triggers: Triggers, target: float = BATCH_TARGET, *, refused: float = 0.0) -> Scenario:
        """Return KEDA for the pods and the worker autoscaler within them."""
        policy = WorkerPolicy(max_workers=MAX_POD_WORKERS, target_in_flight=target)

        def make() -> Parts:
            cluster = self._cluster(sidecar_cpus=SIDECAR_CPUS)
            keda = _keda(cluster, triggers, MAX_POD_WORKERS)
            both = Both(keda, WorkerAutoscaler(cluster, policy, refused_share=refused))
            return cluster, ServiceRouter(cluster, ROUTING_SEED), both

        refusals = f", {refused:.0%} of resizes refused" if refused else ""
        return Scenario(WORKERS, f"{triggers}; worker {target:g}{refusals}", make)

    def _cluster(self, pod_workers: int = POD_WORKERS, sidecar_cpus: float = 0.0) -> Cluster:
        return Cluster(self._service, self._platform, pod_workers=pod_workers, num_pods=1, sidecar_cpus=sidecar_cpus)


def _keda(cluster: Cluster, triggers: Triggers, most_workers: int) -> Keda:
    return Keda(cluster, triggers.rules(cluster), minimum=1, maximum=MAX_CPUS // most_workers, behavior=SHIPPED)
