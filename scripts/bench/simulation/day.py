"""One day under one autoscaler, second by second (within a second times are exact), and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.simulation.cluster import Cluster

LONGEST_DRAIN_SECONDS = 3600
MINUTE_SECONDS = 60


class Router(Protocol):
    """What stands between the clients and the pods."""

    @property
    def num_held(self) -> int:
        """Requests that wait here."""

    def route(self, arrivals: Sequence[float], until: float) -> None:
        """Hand on what arrives before `until`, in order."""


class Controller(Protocol):
    """Something that scales."""

    def step(self, now: float) -> None:
        """Do what there is to do at `now`; called every second, once everything is settled."""


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
    make: Callable[[], tuple[Cluster, Router, Sequence[Controller]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests of a run.

    Attributes:
        family: Which autoscaler.
        setting: What was set.
        num_requests: That arrived.
        num_late: Answered after more than the SLO.
        num_rejected: Answered with 503.
        p50_ms: Median latency of the answers.
        p99_ms: The 99th percentile.
        cpu_hours: Reserved by pods, from the request for a pod to its end.
        most_cpus: Reserved at most.
        num_changes: How often the number of replicas changed.
        minutes: Per minute: requests a second, mean CPUs reserved, share of requests that missed the SLO.
    """

    family: str
    setting: str
    num_requests: int
    num_late: int
    num_rejected: int
    p50_ms: float
    p99_ms: float
    cpu_hours: float
    most_cpus: float
    num_changes: int
    minutes: dict[str, NDArray[np.float64]]

    @property
    def miss_share(self) -> float:
        """Share of requests that were late or refused."""
        return (self.num_late + self.num_rejected) / self.num_requests if self.num_requests else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the totals, ready for json.dumps."""
        names = (name for name in self.__slots__ if name != "minutes")
        return {name: getattr(self, name) for name in names} | {"miss_share": self.miss_share}


def simulate(scenario: Scenario, arrivals: NDArray[np.float64], seconds: int, slo_seconds: float) -> Outcome:
    """Serve the arrivals of so many seconds, and then what is left, and say how that went.

    Args:
        scenario: Who scales.
        arrivals: When each request arrives, ascending, (requests,).
        seconds: Length of the day; CPUs are counted for as long.
        slo_seconds: Latency above which an answer is late.

    Raises:
        RuntimeError: A request is lost, or still in flight an hour after the end: the simulation is wrong.
    """
    cluster, router, controllers = scenario.make()
    edges = np.searchsorted(arrivals, np.arange(seconds + 1))
    reserved, replicas = np.zeros(seconds), np.zeros(seconds, dtype=np.int64)
    end = 0
    while end < seconds or router.num_held or any(pod.num_in_flight(float(end)) for pod in cluster.pods):
        now = arrivals[edges[end] : edges[end + 1]].tolist() if end < seconds else []
        end += 1
        router.route(now, float(end))
        cluster.settle(float(end))
        for controller in controllers:
            controller.step(float(end))
        if end <= seconds:
            reserved[end - 1], replicas[end - 1] = cluster.reserved_cpus(), cluster.replicas
        if end > seconds + LONGEST_DRAIN_SECONDS:
            raise RuntimeError(
                f"{scenario.family}: requests are still in flight {LONGEST_DRAIN_SECONDS} s after the end"
            )
    return _outcome(scenario, cluster, arrivals, reserved, replicas, slo_seconds)


def _outcome(
    scenario: Scenario,
    cluster: Cluster,
    arrivals: NDArray[np.float64],
    reserved: NDArray[np.float64],
    replicas: NDArray[np.int64],
    slo_seconds: float,
) -> Outcome:
    answers = cluster.answers
    arrived, rejected = np.frombuffer(answers.arrived), np.frombuffer(answers.rejected)
    latencies = np.frombuffer(answers.finished) - arrived
    if len(arrived) + len(rejected) != len(arrivals):
        raise RuntimeError(f"{len(arrivals)} requests arrived, {len(arrived)} were answered, {len(rejected)} refused")
    is_late = latencies > slo_seconds
    num_minutes = len(reserved) // MINUTE_SECONDS
    edges = np.arange(num_minutes + 1) * MINUTE_SECONDS
    requests = np.histogram(arrivals, edges)[0]
    misses = np.histogram(np.concatenate([arrived[is_late], rejected]), edges)[0]
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3 if len(latencies) else (0.0, 0.0)
    return Outcome(
        family=scenario.family,
        setting=scenario.setting,
        num_requests=len(arrivals),
        num_late=int(is_late.sum()),
        num_rejected=len(rejected),
        p50_ms=float(p50),
        p99_ms=float(p99),
        cpu_hours=float(reserved.sum()) / 3600,
        most_cpus=float(reserved.max(initial=0.0)),
        num_changes=int(np.count_nonzero(np.diff(replicas))),
        minutes={
            "rate": requests / MINUTE_SECONDS,
            "cpus": reserved[: num_minutes * MINUTE_SECONDS].reshape(num_minutes, -1).mean(axis=1),
            "missed": misses / np.maximum(requests, 1),
        },
    )
