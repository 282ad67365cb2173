"""Knative's autoscaler (KPA): stable and panic windows over concurrency, limited rates, to and from zero.

Sources: Knative's documentation, "Additional autoscaling configuration for Knative Pod Autoscaler" and "Configuring
concurrency", for the settings and their defaults; knative/serving, pkg/autoscaler/scaling/autoscaler.go, for the order in
which they act: rates are limited before panic holds the number, and the panic threshold is compared with what the panic
window asks for before that limit.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from bench.simulation.cluster import Cluster
from bench.simulation.routing import Router

TICK_SECONDS = 2
"""How often it decides; its metrics have a resolution of one second."""


@dataclass(frozen=True, slots=True)
class KpaSettings:
    """What an operator can set; the defaults are those of configs/kubernetes (kserve-knative), else Knative's.

    Attributes:
        target: Requests in flight for a pod, the soft limit: autoscaling.knative.dev/target.
        target_utilization: Share of it that the autoscaler aims at, target-utilization-percentage.
        container_concurrency: Requests a pod may have, the hard limit: containerConcurrency.
        stable_window_seconds: Of the average in quiet times.
        panic_window_seconds: Of the average in a burst: 10 % of the stable window.
        panic_threshold: Panic starts where the panic window asks for so many times the ready pods.
        max_scale_up_rate: The most pods, as a multiple of the ready ones.
        max_scale_down_rate: The fewest, likewise.
        min_scale: Pods that always stay.
        max_scale: Pods there are at most.
        retention_seconds: How long the last pod stays once nothing was in flight for a stable window:
            scale-to-zero-pod-retention-period.
    """

    target: float = 3.0
    target_utilization: float = 1.0
    container_concurrency: int = 32
    stable_window_seconds: int = 60
    panic_window_seconds: int = 6
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    min_scale: int = 0
    max_scale: int = 12
    retention_seconds: int = 300

    @property
    def aim(self) -> float:
        """Requests in flight that a pod is meant to have."""
        return self.target * self.target_utilization


class KpaDecision:
    """The decision from averages to pods, with its memory of panic."""

    def __init__(self, settings: KpaSettings) -> None:
        self._settings = settings
        self._panic_since: float | None = None
        self._max_panic_pods = 0

    @property
    def is_panicking(self) -> bool:
        """Whether only increases are applied."""
        return self._panic_since is not None

    def decide(self, now: float, stable: float, panic: float, num_ready: int) -> int:
        """Return the pods wanted.

        Args:
            now: In seconds.
            stable: Mean requests in flight over the stable window.
            panic: The same over the panic window.
            num_ready: Pods that get requests.
        """
        settings = self._settings
        ready = max(1, num_ready)
        most = math.ceil(settings.max_scale_up_rate * ready)
        fewest = math.floor(ready / settings.max_scale_down_rate)
        by_stable = math.ceil(stable / settings.aim)
        by_panic = math.ceil(panic / settings.aim)
        wanted = min(max(by_stable, fewest), most)
        self._watch_panic(now, is_over=by_panic / ready >= settings.panic_threshold)
        if self._panic_since is not None:
            self._max_panic_pods = max(self._max_panic_pods, wanted, min(max(by_panic, fewest), most))
            wanted = self._max_panic_pods
        return min(max(wanted, settings.min_scale), settings.max_scale)

    def _watch_panic(self, now: float, *, is_over: bool) -> None:
        if is_over:
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since > self._settings.stable_window_seconds:
            self._panic_since = None
            self._max_panic_pods = 0


class Kpa:
    """The autoscaler at work: once a second it is told what is in flight, every second time it decides."""

    def __init__(self, settings: KpaSettings, cluster: Cluster, router: Router) -> None:
        self._settings, self._cluster, self._router = settings, cluster, router
        self._decision = KpaDecision(settings)
        self._concurrency: deque[float] = deque(maxlen=settings.stable_window_seconds)
        self._seen_seconds: dict[int, float] = {}
        self._seen_held = 0.0
        self._idle_since: float | None = None

    def step(self, now: float) -> None:
        """Look, and decide if it is time; a request that finds no pod makes it decide at once."""
        self._concurrency.append(self._mean_in_flight(now))
        is_called = self._router.num_held > 0 and self._cluster.replicas == 0
        if now % TICK_SECONDS and not is_called:
            return
        recent = list(self._concurrency)
        panic = recent[-self._settings.panic_window_seconds :]
        num_ready = len(self._cluster.ready_pods(now))
        wanted = self._decision.decide(now, sum(recent) / len(recent), sum(panic) / len(panic), num_ready)
        self._cluster.scale(self._hold_last(wanted, now), now)

    def _mean_in_flight(self, now: float) -> float:
        """Return the mean over the last second: what the pods report, and what the activator holds."""
        mean = self._router.held_seconds - self._seen_held
        self._seen_held = self._router.held_seconds
        seen = {}
        for pod in self._cluster.pods:
            seen[pod.number] = pod.in_flight_seconds(now)
            mean += seen[pod.number] - self._seen_seconds.get(pod.number, 0.0)
        self._seen_seconds = seen
        return max(0.0, mean)

    def _hold_last(self, wanted: int, now: float) -> int:
        """Keep the last pod for the retention period."""
        if wanted > 0 or self._cluster.replicas == 0:
            self._idle_since = None
            return wanted
        self._idle_since = now if self._idle_since is None else self._idle_since
        return 0 if now - self._idle_since >= self._settings.retention_seconds else 1
