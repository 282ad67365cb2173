"""How long work takes: the measured model of a server, and what a cluster adds, which is stated and not measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MEASURED = Path(__file__).with_name("measured.json")
"""What `scripts/bench/autoscaling --measure` wrote."""

NOISE_DRAWS = 9973
"""Length of the cycle of noise; a prime, so that it does not fall in step with anything."""


@dataclass(frozen=True, slots=True)
class Service:
    """A worker of one thread on a CPU of its own.

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

    def batch_seconds(self) -> tuple[float, ...]:
        """Return the mean time of a batch, indexed by its size from 0 to batch_size."""
        return tuple(self.call_seconds + size * self.request_seconds for size in range(self.batch_size + 1))

    def noise_factors(self, seed: int) -> list[float]:
        """Return factors with mean 1 that batches take turns with."""
        rng = np.random.default_rng(seed)
        draws = rng.lognormal(-(self.noise**2) / 2, self.noise, NOISE_DRAWS)
        return [float(draw) for draw in draws]


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


def read_measured(path: Path = MEASURED) -> tuple[Service, dict[str, Any]]:
    """Return the measured model and what was written with it about machine and method."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Service(**content["service"]), content
