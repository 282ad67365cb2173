"""`ts-handlers autoscale` in every pod: its own window and decision, with what it would see and do there simulated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.simulation.cluster import Cluster
from bench.simulation.pod import Pod
from ts_handlers.operate.autoscale.decide import Policy, State, changed, decide
from ts_handlers.operate.autoscale.observe import Sample, Window
from ts_handlers.operate.torchserve.client import ModelStatus, Worker
from ts_handlers.operate.torchserve.metrics import Counters

INTERVAL_SECONDS = 2
WINDOW_SECONDS = 10.0
"""Both as `ts-handlers autoscale` has them by default."""

REFUSAL_SEED = 23

_MODEL = "model"


@dataclass(slots=True)
class _Watched:
    """What is remembered of a pod between two looks.

    Attributes:
        window: Its last looks.
        state: Of the decision.
        loading: When workers that were asked for will serve.
        releases: When CPUs of workers that were taken away are given back.
    """

    window: Window
    state: State = field(default_factory=State)
    loading: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)


class WorkerAutoscaler:
    """One worker is one CPU: up, the pod is resized and then the worker loaded; down, it is drained and then resized.

    Args:
        cluster: Its pods.
        policy: Of the decision.
        refused_share: Share of resizes to more CPUs that the node has no room for; they change nothing and are tried again.
    """

    def __init__(self, cluster: Cluster, policy: Policy, *, refused_share: float = 0.0) -> None:
        self._cluster, self._policy, self._refused_share = cluster, policy, refused_share
        self._watched: dict[int, _Watched] = {}
        self._rng = np.random.default_rng(REFUSAL_SEED)

    def step(self, now: float) -> None:
        """Give back what was freed, and look at every pod if it is time."""
        live = [pod for pod in self._cluster.live_pods() if pod.ready <= now]
        self._watched = {pod.number: self._watched.get(pod.number) or self._watch() for pod in live}
        for pod in live:
            watched = self._watched[pod.number]
            held = len(watched.releases)
            watched.releases = [time for time in watched.releases if time > now]
            pod.cpus -= held - len(watched.releases)
            watched.loading = [time for time in watched.loading if time > now]
            if now % INTERVAL_SECONDS == 0:
                self._look(pod, watched, now)

    def _watch(self) -> _Watched:
        return _Watched(Window(_MODEL, WINDOW_SECONDS, self._cluster.service.worker_load_seconds))

    def _look(self, pod: Pod, watched: _Watched, now: float) -> None:
        seen = watched.window.add(Sample(now, self._status(pod, watched), self._counters(pod)))
        if seen is None:  # the first look after something changed
            return
        resize, load = self._cluster.platform.resize_seconds, self._cluster.service.worker_load_seconds
        decision, state = decide(self._policy, watched.state, seen)
        if decision.change > 0 and self._rng.random() >= self._refused_share:
            for _ in range(decision.change):  # CPUs are reserved from the first moment
                pod.add_worker(now + resize + load)
                watched.loading.append(now + resize + load)
            pod.cpus += decision.change
            state = changed(state, now)
        elif decision.change < 0:
            for _ in range(-decision.change):
                watched.releases.append(pod.remove_worker(now) + resize)
            state = changed(state, now)
        watched.state = state

    def _status(self, pod: Pod, watched: _Watched) -> ModelStatus:
        num_ready = pod.num_workers - len(watched.loading)
        workers = tuple(Worker(str(index), index, index < num_ready, 0) for index in range(pod.num_workers))
        return ModelStatus(workers, pod.num_waiting, self._cluster.service.job_queue_size - pod.num_waiting, 120.0)

    def _counters(self, pod: Pod) -> Counters:
        """Return what TorchServe's metrics would say: requests count on arrival, seconds when an answer is complete."""
        return Counters(
            requests={_MODEL: float(pod.num_admitted + pod.num_rejected)},
            latency_s={_MODEL: pod.latency_seconds},
            queue_s={_MODEL: pod.queue_seconds},
            failures=float(pod.num_rejected),
            load_time_s={_MODEL: self._cluster.service.worker_load_seconds},
        )
