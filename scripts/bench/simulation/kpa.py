"""Knative: its autoscaler (KPA), stable and panic windows over concurrency, to and from zero; its activator holds requests.

Sources: Knative's documentation, "Additional autoscaling configuration for Knative Pod Autoscaler" and "Configuring
concurrency", for the settings and their defaults; knative/serving, pkg/autoscaler/scaling/autoscaler.go, for the order in
which they act: rates are limited before panic holds the number, and the panic threshold is compared with what the panic
window asks for before that limit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from bench.simulation.cluster import Cluster
from bench.simulation.pod import Pod

# Those of configs/kubernetes (kserve-knative), else Knative's defaults.
TICK_SECONDS = 2
STABLE_WINDOW_SECONDS = 60
PANIC_WINDOW_SECONDS = 6
PANIC_THRESHOLD = 2.0
MAX_SCALE_UP_RATE = 1000.0
MAX_SCALE_DOWN_RATE = 2.0
RETENTION_SECONDS = 300
"""scale-to-zero-pod-retention-period: how long the last pod stays once nothing was in flight for a stable window."""

CONTAINER_CONCURRENCY = 32
ACTIVATOR_CAPACITY = 10_000


class Activator:
    """Pods take turns, one that has as many requests as containerConcurrency is passed over.

    What no pod has room for waits here, first come, first served. It is in the path while spare capacity is below
    target-burst-capacity (200): with fewer than some dozen pods of this model, always.

    Args:
        cluster: The pods.
        concurrency: Requests a pod may have, containerConcurrency.
        capacity: Requests that may wait here; what comes then gets 503.
    """

    def __init__(
        self, cluster: Cluster, concurrency: int = CONTAINER_CONCURRENCY, capacity: int = ACTIVATOR_CAPACITY
    ) -> None:
        self._cluster, self._concurrency, self._capacity = cluster, concurrency, capacity
        self._held: deque[float] = deque()
        self._sum_arrived = self._sum_left = self._now = self._next_room = 0.0
        self._turn = 0
        self._pods: list[Pod] = []

    @property
    def num_held(self) -> int:
        """Requests that wait here."""
        return len(self._held)

    @property
    def held_seconds(self) -> float:
        """The integral of the requests that waited here, up to the last `until`."""
        return self._sum_left + len(self._held) * self._now - self._sum_arrived

    def route(self, arrivals: Sequence[float], until: float) -> None:
        """Hand on what arrives before `until`, and what waits; the endpoints are those of the beginning."""
        self._pods = self._cluster.ready_pods(self._now)
        self._next_room = self._now
        for arrived in arrivals:
            if self._held:
                self._release(arrived)
            pod = None if self._held else self._pod_with_room(arrived)
            if pod is not None:
                pod.admit(arrived, arrived)
            elif len(self._held) < self._capacity:
                self._held.append(arrived)
                self._sum_arrived += arrived
                self._next_room = self._earliest_finish()
            else:
                self._cluster.answers.rejected.append(arrived)
        self._release(until)
        for pod in self._cluster.pods:
            pod.advance(until)
        self._now = until

    def _release(self, until: float) -> None:
        """Hand on what waits to pods that are full, as they end batches before `until`."""
        while self._held and self._next_room < until:
            now = self._next_room
            while self._held and (pod := self._pod_with_room(now)) is not None:
                pod.admit(now, self._held.popleft())
                self._sum_left += now
            for pod in self._pods:
                pod.advance(math.nextafter(now, math.inf))
            self._next_room = self._earliest_finish()

    def _earliest_finish(self) -> float:
        return min((pod.next_finish() for pod in self._pods), default=math.inf)

    def _pod_with_room(self, now: float) -> Pod | None:
        pods = self._pods
        for step in range(len(pods)):
            pod = pods[(self._turn + step) % len(pods)]
            if pod.num_in_flight(now) < self._concurrency:
                self._turn = (self._turn + step + 1) % len(pods)
                return pod
        return None


class Kpa:
    """The autoscaler: once a second it is told what is in flight, every second time it decides.

    Args:
        cluster: What it scales.
        activator: What requests come through.
        target: Requests in flight for a pod, autoscaling.knative.dev/target at a target utilization of 100 %.
        max_scale: Pods there are at most.
        retention_seconds: How long the last pod stays.
    """

    def __init__(
        self,
        cluster: Cluster,
        activator: Activator,
        target: float,
        max_scale: int,
        retention_seconds: int = RETENTION_SECONDS,
    ) -> None:
        self._cluster, self._activator, self._target, self._max_scale = cluster, activator, target, max_scale
        self._retention_seconds = retention_seconds
        self._concurrency: deque[float] = deque(maxlen=STABLE_WINDOW_SECONDS)
        self._seen_seconds: dict[int, float] = {}
        self._seen_held = 0.0
        self._idle_since: float | None = None
        self.panic_since: float | None = None
        self._max_panic_pods = 0

    def step(self, now: float) -> None:
        """Look, and decide if it is time; a request that finds no pod makes it decide at once."""
        self._concurrency.append(self._mean_in_flight(now))
        is_called = self._activator.num_held > 0 and self._cluster.replicas == 0
        if now % TICK_SECONDS and not is_called:
            return
        recent = list(self._concurrency)
        panic = recent[-PANIC_WINDOW_SECONDS:]
        num_ready = len(self._cluster.ready_pods(now))
        wanted = self.decide(now, sum(recent) / len(recent), sum(panic) / len(panic), num_ready)
        self._cluster.scale(self._hold_last(wanted, now), now)

    def _mean_in_flight(self, now: float) -> float:
        """Return the mean over the last second: what the pods report, and what the activator holds."""
        mean = self._activator.held_seconds - self._seen_held
        self._seen_held = self._activator.held_seconds
        seen = {pod.number: pod.in_flight_seconds(now) for pod in self._cluster.pods}
        for number, seconds in seen.items():
            mean += seconds - self._seen_seconds.get(number, 0.0)
        self._seen_seconds = seen
        return max(0.0, mean)

    def _hold_last(self, wanted: int, now: float) -> int:
        """Keep the last pod for the retention period."""
        if wanted > 0 or self._cluster.replicas == 0:
            self._idle_since = None
            return wanted
        self._idle_since = now if self._idle_since is None else self._idle_since
        return 0 if now - self._idle_since >= self._retention_seconds else 1

    def decide(self, now: float, stable: float, panic: float, num_ready: int) -> int:
        """Return the pods wanted.

        Args:
            now: In seconds.
            stable: Mean requests in flight over the stable window.
            panic: The same over the panic window.
            num_ready: Pods that get requests.
        """
        ready = max(1, num_ready)
        most, fewest = math.ceil(MAX_SCALE_UP_RATE * ready), math.floor(ready / MAX_SCALE_DOWN_RATE)
        by_stable, by_panic = math.ceil(stable / self._target), math.ceil(panic / self._target)
        wanted = min(max(by_stable, fewest), most)
        if by_panic / ready >= PANIC_THRESHOLD:
            self.panic_since = now
        elif self.panic_since is not None and now - self.panic_since > STABLE_WINDOW_SECONDS:
            self.panic_since, self._max_panic_pods = None, 0
        if self.panic_since is not None:
            self._max_panic_pods = max(self._max_panic_pods, wanted, min(max(by_panic, fewest), most))
            wanted = self._max_panic_pods
        return min(wanted, self._max_scale)
