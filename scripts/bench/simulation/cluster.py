"""The pods of one deployment: made, ready, drained and gone, and the CPUs they reserve meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from bench.simulation.pod import Answers, Pod
from bench.simulation.service import Platform, Service

NOISE_SEED = 11


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
        self, service: Service, platform: Platform, *, pod_workers: int, num_pods: int, sidecar_cpus: float = 0.0
    ) -> None:
        self.service, self.platform, self.pod_workers = service, platform, pod_workers
        self._sidecar_cpus = sidecar_cpus
        self.answers = Answers()
        self.pods: list[Pod] = []
        self._start_seconds = platform.pod_start_seconds(service)
        self._batch_seconds = service.batch_seconds()
        self._noise = cycle(service.noise_factors(NOISE_SEED))
        self._num_made = 0
        for _ in range(num_pods):
            self.pods.append(self._make(created=0.0, ready=0.0))

    @property
    def replicas(self) -> int:
        """Pods that are not on their way out."""
        return sum(pod.ended is None for pod in self.pods)

    def ready_pods(self, now: float) -> list[Pod]:
        """Return the endpoints."""
        return [pod for pod in self.pods if pod.is_ready(now)]

    def live_pods(self) -> list[Pod]:
        """Return the pods that are not on their way out."""
        return [pod for pod in self.pods if pod.ended is None]

    def scale(self, replicas: int, now: float) -> None:
        """Make or end pods. A ReplicaSet ends those that are not ready first, then those that became ready last."""
        live = self.live_pods()
        for _ in range(replicas - len(live)):
            self.pods.append(self._make(created=now, ready=now + self._start_seconds))
        doomed = sorted(live, key=lambda pod: (pod.ready <= now, -pod.ready, -pod.number))[
            : max(0, len(live) - replicas)
        ]
        for pod in doomed:
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
        if pod.ready > pod.ended:  # it never had a request
            return True
        return now >= pod.ended + self.platform.drain_seconds and pod.num_in_flight(now) == 0

    def _make(self, created: float, ready: float) -> Pod:
        self._num_made += 1
        return Pod(
            self._num_made,
            created,
            ready,
            self.pod_workers,
            batch_seconds=self._batch_seconds,
            noise=self._noise,
            job_queue_size=self.service.job_queue_size,
            answers=self.answers,
        )


def earliest_finish(pods: Sequence[Pod]) -> float:
    """Return when the first of the running batches ends; infinity if none runs."""
    return min((pod.next_finish() for pod in pods), default=float("inf"))
