"""`ts-handlers autoscale` in every pod: its own decision function, with what it would see and do there simulated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bench.simulation.cluster import Cluster
from bench.simulation.pod import Pod
from ts_handlers.operate.autoscale.decide import Observation, Policy, State, decide, forget_change

INTERVAL_SECONDS = 2
"""How often it looks."""

REFUSAL_SEED = 23


@dataclass(slots=True)
class _Watched:
    """What is remembered of a pod between two looks."""

    state: State = field(default_factory=State)
    queued: list[int] = field(default_factory=list)
    in_flight_seconds: float = 0.0
    completed: int = 0
    latency_seconds: float = 0.0
    looked: float = 0.0
    loading: list[float] = field(default_factory=list)
    """When workers that were asked for will serve."""
    releases: list[float] = field(default_factory=list)
    """When CPUs of workers that were taken away are given back."""


class WorkerAutoscaler:
    """One worker is one CPU: up, the pod is resized and then the worker loaded; down, it is drained and then resized.

    Args:
        cluster: Its pods.
        policy: Of the decision.
        refused_share: Share of resizes to more CPUs that the node has no room for; those change nothing, and are tried again.
    """

    def __init__(self, cluster: Cluster, policy: Policy, *, refused_share: float = 0.0) -> None:
        self._cluster, self._policy, self._refused_share = cluster, policy, refused_share
        self._watched: dict[int, _Watched] = {}
        self._rng = np.random.default_rng(REFUSAL_SEED)
        self.num_resizes = 0
        self.num_refused = 0

    def step(self, now: float) -> None:
        """Look at every pod, and scale its workers if it is time."""
        live = [pod for pod in self._cluster.live_pods() if pod.ready <= now]
        self._watched = {pod.number: self._watched.get(pod.number) or _new(pod, now) for pod in live}
        for pod in live:
            watched = self._watched[pod.number]
            watched.queued.append(pod.num_waiting)
            watched.loading = _later(watched.loading, now)
            given_back = len(watched.releases) - len(_later(watched.releases, now))
            watched.releases = _later(watched.releases, now)
            pod.cpus -= given_back
            if now % INTERVAL_SECONDS == 0 and now > watched.looked:
                self._look(pod, watched, now)

    def _look(self, pod: Pod, watched: _Watched, now: float) -> None:
        seen = self._observe(pod, watched, now)
        decision, state = decide(self._policy, watched.state, seen)
        if decision.change > 0 and self._is_refused():
            state = forget_change(state, watched.state)
        elif decision.change > 0:
            self._add(pod, watched, decision.change, now)
        elif decision.change < 0:
            for _ in range(-decision.change):
                watched.releases.append(pod.remove_worker(now))
            self.num_resizes += 1
        watched.state = state

    def _observe(self, pod: Pod, watched: _Watched, now: float) -> Observation:
        seconds = now - watched.looked
        in_flight = pod.in_flight_seconds(now)
        answered = pod.completed - watched.completed
        seen = Observation(
            time_s=now,
            workers=pod.num_workers,
            ready=pod.num_workers - len(watched.loading),
            in_flight=(in_flight - watched.in_flight_seconds) / seconds,
            queued=sum(watched.queued) / len(watched.queued),
            rate=answered / seconds,
            latency_ms=1e3 * (pod.latency_seconds - watched.latency_seconds) / answered if answered else None,
            load_time_s=self._cluster.service.worker_load_seconds,
        )
        watched.queued, watched.looked, watched.in_flight_seconds = [], now, in_flight
        watched.completed, watched.latency_seconds = pod.completed, pod.latency_seconds
        return seen

    def _add(self, pod: Pod, watched: _Watched, count: int, now: float) -> None:
        """Resize, wait for the cgroup, load: the CPUs are reserved from the first moment."""
        ready = now + self._cluster.platform.resize_seconds + self._cluster.service.worker_load_seconds
        for _ in range(count):
            pod.add_worker(ready)
            watched.loading.append(ready)
        pod.cpus += count
        self.num_resizes += 1

    def _is_refused(self) -> bool:
        is_refused = bool(self._rng.random() < self._refused_share)
        self.num_refused += is_refused
        return is_refused


def _new(pod: Pod, now: float) -> _Watched:
    return _Watched(
        looked=now,
        in_flight_seconds=pod.in_flight_seconds(now),
        completed=pod.completed,
        latency_seconds=pod.latency_seconds,
    )


def _later(times: Iterable[float], now: float) -> list[float]:
    return [time for time in times if time > now]
