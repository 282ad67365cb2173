"""The autoscalers that are compared, with the settings that configs/kubernetes ships and with others around them."""

from __future__ import annotations

from dataclasses import replace

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

SHIPPED = Behavior(
    up=(Policy("Percent", 100, 30), Policy("Pods", 2, 30)),
    down=(Policy("Pods", 1, 60),),
)
"""spec.behavior of the hpa and keda components of configs/kubernetes."""

KPA, HPA, KEDA, WORKERS = "KPA", "HPA on CPU", "KEDA on queue depth", "KEDA and worker autoscaler"
IN_FLIGHT = "KEDA on requests in flight"

QUEUE, FLIGHT = "queue_seconds", "latency_seconds"

Parts = tuple[Cluster, Router, Controller]


class Scenarios:
    """Makes scenarios for one server and one platform."""

    def __init__(self, service: Service, platform: Platform) -> None:
        self._service, self._platform = service, platform

    def shipped(self) -> list[Scenario]:
        """Return the four that are compared, as configs/kubernetes has them."""
        return [self.kpa(3.0), self.hpa(0.7), self.keda(2.0), self.workers(2.0)]

    def others(self) -> list[Scenario]:
        """Return other settings of these, KEDA on requests in flight, and ours where resizes are refused."""
        kpas = [self.kpa(target) for target in (1.0, 1.4, 2.0)]
        hpas = [self.hpa(target) for target in (0.3, 0.4, 0.5)]
        kedas = [self.keda(threshold) for threshold in (0.5, 8.0)]
        flights = [self.keda(threshold, FLIGHT) for threshold in (0.7, 1.0, 1.4)]
        ours = [self.workers(threshold, FLIGHT) for threshold in (1.0, 1.5, 3.0)]
        return [
            *kpas,
            *hpas,
            self.hpa(0.5, pod_workers=1),
            *kedas,
            *flights,
            *ours,
            self.workers(1.5, FLIGHT, refused=1.0),
        ]

    def kpa(self, target: float) -> Scenario:
        """Return Knative's autoscaler with a soft target of requests in flight."""
        settings = replace(KpaSettings(), target=target, max_scale=MAX_CPUS // POD_WORKERS)

        def make() -> Parts:
            cluster = self._cluster()
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

    def keda(self, threshold: float, counter: str = QUEUE) -> Scenario:
        """Return KEDA on the recorded queue depth, or on the recorded requests in flight."""

        def make() -> Parts:
            cluster = self._cluster()
            return cluster, ServiceRouter(cluster, ROUTING_SEED), self._keda(cluster, threshold, counter, POD_WORKERS)

        return Scenario(KEDA if counter == QUEUE else IN_FLIGHT, f"threshold {threshold:g}", make)

    def workers(self, threshold: float, counter: str = QUEUE, *, refused: float = 0.0) -> Scenario:
        """Return KEDA for the pods and the worker autoscaler within them."""
        policy = WorkerPolicy(max_workers=MAX_POD_WORKERS, target_in_flight=1.0)

        def make() -> Parts:
            cluster = self._cluster()
            keda = self._keda(cluster, threshold, counter, MAX_POD_WORKERS)
            both = Both(keda, WorkerAutoscaler(cluster, policy, refused_share=refused))
            return cluster, ServiceRouter(cluster, ROUTING_SEED), both

        name = "queue" if counter == QUEUE else "in flight"
        refusals = f", {refused:.0%} of resizes refused" if refused else ""
        return Scenario(WORKERS, f"{name} {threshold:g}{refusals}", make)

    def _cluster(self, pod_workers: int = POD_WORKERS) -> Cluster:
        return Cluster(self._service, self._platform, pod_workers=pod_workers, num_pods=1)

    def _keda(self, cluster: Cluster, threshold: float, counter: str, most_workers: int) -> Keda:
        rule = QueueRule(cluster, counter)
        return Keda(cluster, rule, threshold=threshold, minimum=1, maximum=MAX_CPUS // most_workers, behavior=SHIPPED)
