"""One day under one autoscaler, second by second; within a second times are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.simulation.cluster import Cluster
from bench.simulation.controllers import Controller
from bench.simulation.outcome import Outcome
from bench.simulation.routing import Router

LONGEST_DRAIN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Scenario:
    """An autoscaler with its settings.

    Attributes:
        family: Which autoscaler.
        setting: What is set, in a few words.
        make: Makes the cluster, what routes to it and what scales it, new for each run.
    """

    family: str
    setting: str
    make: Callable[[], tuple[Cluster, Router, Controller]]

    @property
    def name(self) -> str:
        """Autoscaler and setting."""
        return f"{self.family}, {self.setting}"


def simulate(scenario: Scenario, arrivals: NDArray[np.float64], seconds: int, slo_seconds: float) -> Outcome:
    """Serve the arrivals of so many seconds, and then what is left, and say how that went.

    Args:
        scenario: Who scales.
        arrivals: When each request arrives, ascending, (requests,).
        seconds: Length of the day; CPUs are counted for as long.
        slo_seconds: Latency above which an answer is late.

    Raises:
        RuntimeError: Requests were still in flight an hour after the end: the simulation is wrong, or the capacity absurd.
    """
    cluster, router, controller = scenario.make()
    edges = np.searchsorted(arrivals, np.arange(seconds + 1))
    reserved = np.zeros(seconds)
    replicas = np.zeros(seconds, dtype=np.int64)
    for second in range(seconds):
        _tick(cluster, router, controller, arrivals[edges[second] : edges[second + 1]].tolist(), second + 1.0)
        reserved[second] = cluster.reserved_cpus()
        replicas[second] = cluster.replicas
    end = seconds
    while router.num_held or any(pod.num_in_flight(float(end)) for pod in cluster.pods):
        end += 1
        _tick(cluster, router, controller, [], float(end))
        if end > seconds + LONGEST_DRAIN_SECONDS:
            raise RuntimeError(f"{scenario.name}: requests are still in flight {LONGEST_DRAIN_SECONDS} s after the end")
    return Outcome.of(scenario.family, scenario.setting, cluster.answers, arrivals, reserved, replicas, slo_seconds)


def _tick(cluster: Cluster, router: Router, controller: Controller, arrivals: list[float], until: float) -> None:
    router.route(arrivals, until)
    cluster.settle(until)
    controller.step(until)
