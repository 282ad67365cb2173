"""How requests reach pods: a Service, or Knative's activator, which holds those that no pod has room for."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bench.simulation.cluster import Cluster, earliest_finish
from bench.simulation.pod import Pod


class Router(Protocol):
    """What stands between the clients and the pods."""

    @property
    def num_held(self) -> int:
        """Requests that wait here."""

    @property
    def held_seconds(self) -> float:
        """The integral of the requests that waited here."""

    def route(self, arrivals: Sequence[float], until: float) -> None:
        """Hand on what arrives before `until`, in order."""


class ServiceRouter:
    """A Service: each request goes to one of the endpoints, by chance, however busy that is.

    This is what kube-proxy does with connections; clients that keep theirs are less even than that.
    """

    num_held = 0
    held_seconds = 0.0

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = np.random.default_rng(seed)

    def route(self, arrivals: Sequence[float], until: float) -> None:
        """Hand on what arrives before `until`; without an endpoint the answer is 503."""
        pods = self._cluster.ready_pods(arrivals[0]) if arrivals else []
        if not pods:
            for arrived in arrivals:
                self._cluster.answers.reject(arrived)
            return
        for arrived, index in zip(arrivals, self._rng.integers(len(pods), size=len(arrivals)).tolist(), strict=True):
            pods[index].admit(arrived, arrived)
        for pod in pods:
            pod.advance(until)


class Activator:
    """Knative's activator: pods take turns, one that has as many requests as containerConcurrency is passed over.

    What no pod has room for waits here, first come, first served. It is in the path while spare capacity is below
    target-burst-capacity (200): with fewer than some dozen pods of this model, always.

    Args:
        cluster: The pods.
        concurrency: Requests a pod may have, containerConcurrency.
        capacity: Requests that may wait here; what comes then gets 503.
    """

    def __init__(self, cluster: Cluster, concurrency: int, capacity: int = 10_000) -> None:
        self._cluster, self._concurrency, self._capacity = cluster, concurrency, capacity
        self._held: deque[float] = deque()
        self._num_taken, self._sum_arrived, self._sum_left = 0, 0.0, 0.0
        self._turn = 0
        self._now = 0.0
        self._pods: list[Pod] = []
        self._next_room = 0.0

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
                self._next_room = earliest_finish(self._pods)
            else:
                self._cluster.answers.reject(arrived)
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
            self._next_room = earliest_finish(self._pods)

    def _pod_with_room(self, now: float) -> Pod | None:
        pods = self._pods
        for step in range(len(pods)):
            pod = pods[(self._turn + step) % len(pods)]
            if pod.num_in_flight(now) < self._concurrency:
                self._turn = (self._turn + step + 1) % len(pods)
                return pod
        return None
