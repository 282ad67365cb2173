"""The pods of one deployment, how long work takes them, and the Service before them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bench.simulation.pod import Answers, Pod

MEASURED = Path(__file__).with_name("measured.json")
"""What `scripts/bench/autoscaling --measure` wrote."""

NOISE_SEED = 11
NOISE_DRAWS = 9973
"""Length of the cycle of noise; a prime, so that it does not fall in step with anything."""


@dataclass(frozen=True, slots=True)
class Service:
    """A worker of one thread on a CPU of its own: measured.

    Attributes:
        call_seconds: What a batch costs, however many requests are in it.
        request_seconds: What each of its requests costs.
        noise: Standard deviation of the logarithm of a batch's time around its mean.
        worker_load_seconds: From the request for one worker more until it serves.
        server_start_seconds: From the start of the process until a server with two workers serves.
        batch_size: Requests a worker takes at most.
        job_queue_size: Requests that may wait in a pod; what comes then gets 503.
    """

    call_seconds: float
    request_seconds: float
    noise: float
    worker_load_seconds: float
    server_start_seconds: float
    batch_size: int = 8
    job_queue_size: int = 100


@dataclass(frozen=True, slots=True)
class Platform:
    """What the cluster does: stated here, because no cluster was measured. All in seconds.

    Attributes:
        schedule_seconds: From a larger `replicas` to a container that starts: controller, scheduler, kubelet, network.
            The image is on the node, and the node has room.
        readiness_seconds: From a server that serves to traffic: half a period of the readiness probe, and the endpoints.
        drain_seconds: How long a pod stays after it was taken out of the endpoints, as its preStop hook waits.
        resize_seconds: From the patch of a pod's CPU to the changed cgroup.
    """

    schedule_seconds: float = 4.0
    readiness_seconds: float = 4.0
    drain_seconds: float = 10.0
    resize_seconds: float = 2.0

    def pod_start_seconds(self, service: Service) -> float:
        """Return the time from a larger `replicas` to a pod that gets requests."""
        return self.schedule_seconds + service.server_start_seconds + self.readiness_seconds


def read_measured() -> tuple[Service, dict[str, Any]]:
    """Return the measured model and what was written with it about machine and method."""
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    return Service(**content["service"]), content


class Cluster:
    """Pods that serve one model.

    Args:
        service: How long work takes.
        platform: What the cluster adds.
        pod_workers: Workers, and so CPUs, a new pod starts with.
        num_pods: How many there are, ready, at the beginning.
        sidecar_cpus: CPUs that a pod reserves besides.
    """

    def __init__(
        self, service: Service, platform: Platform, *, pod_workers: int, num_pods: int = 1, sidecar_cpus: float = 0.0
    ) -> None:
        self.service, self.platform = service, platform
        self._pod_workers, self._sidecar_cpus = pod_workers, sidecar_cpus
        self.answers = Answers()
        draws = np.random.default_rng(NOISE_SEED).lognormal(-(service.noise**2) / 2, service.noise, NOISE_DRAWS)
        self._noise = cycle(draws.tolist())
        self._num_made = 0
        self.pods = [self._make(created=0.0, ready=0.0) for _ in range(num_pods)]

    @property
    def replicas(self) -> int:
        """Pods that are not on their way out."""
        return len(self.live_pods())

    def ready_pods(self, now: float) -> list[Pod]:
        """Return the endpoints."""
        return [pod for pod in self.pods if pod.is_ready(now)]

    def live_pods(self) -> list[Pod]:
        """Return the pods that are not on their way out."""
        return [pod for pod in self.pods if pod.ended is None]

    def scale(self, replicas: int, now: float) -> None:
        """Make or end pods. A ReplicaSet ends those that are not ready first, then those that became ready last."""
        live = self.live_pods()
        ready = now + self.platform.pod_start_seconds(self.service)
        self.pods += [self._make(created=now, ready=ready) for _ in range(replicas - len(live))]
        doomed = sorted(live, key=lambda pod: (pod.ready <= now, -pod.ready, -pod.number))
        for pod in doomed[: max(0, len(live) - replicas)]:
            pod.ended = now

    def settle(self, now: float) -> None:
        """Bring every pod to `now`, and let go of those that have ended, drained and waited."""
        for pod in self.pods:
            pod.settle(now)
        self.pods = [pod for pod in self.pods if not self._is_gone(pod, now)]

    def reserved_cpus(self) -> float:
        """Return the CPUs that pods hold, starting and ending ones too."""
        return sum(pod.cpus + self._sidecar_cpus for pod in self.pods)

    def _is_gone(self, pod: Pod, now: float) -> bool:
        if pod.ended is None or now < pod.ended:
            return False
        never_served = pod.ready > pod.ended
        return never_served or (now >= pod.ended + self.platform.drain_seconds and pod.num_in_flight(now) == 0)

    def _make(self, created: float, ready: float) -> Pod:
        self._num_made += 1
        service = self.service
        return Pod(
            self._num_made,
            created,
            ready,
            self._pod_workers,
            batch_seconds=tuple(
                service.call_seconds + size * service.request_seconds for size in range(service.batch_size + 1)
            ),
            noise=self._noise,
            job_queue_size=service.job_queue_size,
            answers=self.answers,
        )


class ServiceRouter:
    """A Service: each request goes to one of the endpoints, by chance, however busy that is.

    This is what kube-proxy does with connections; clients that keep theirs are less even than that.
    """

    num_held = 0

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster, self._rng = cluster, np.random.default_rng(seed)

    def route(self, arrivals: Sequence[float], until: float) -> None:
        """Hand on what arrives before `until`, in order; without an endpoint the answer is 503."""
        pods = self._cluster.ready_pods(arrivals[0]) if arrivals else []
        if not pods:
            self._cluster.answers.rejected.extend(arrivals)
            return
        for arrived, index in zip(arrivals, self._rng.integers(len(pods), size=len(arrivals)).tolist(), strict=True):
            pods[index].admit(arrived, arrived)
        for pod in pods:
            pod.advance(until)
