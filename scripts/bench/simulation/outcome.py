"""What a day came to: late answers, refused requests, CPU-hours, by minute and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.simulation.pod import Answers

MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run.

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
    def num_answered(self) -> int:
        """Requests that were answered with 200."""
        return self.num_requests - self.num_rejected

    @property
    def miss_share(self) -> float:
        """Share of requests that were late or refused."""
        return (self.num_late + self.num_rejected) / self.num_requests if self.num_requests else 0.0

    @classmethod
    def of(
        cls,
        family: str,
        setting: str,
        answers: Answers,
        arrivals: NDArray[np.float64],
        reserved: NDArray[np.float64],
        replicas: NDArray[np.int64],
        slo_seconds: float,
    ) -> Outcome:
        """Sum up a run.

        Args:
            family: Which autoscaler.
            setting: What was set.
            answers: Of the run.
            arrivals: When requests arrived, (requests,).
            reserved: CPUs in each second, (seconds,).
            replicas: Pods in each second, (seconds,).
            slo_seconds: Latency above which an answer is late.

        Raises:
            RuntimeError: A request is lost or there is one too many: the simulation is wrong.
        """
        arrived = np.frombuffer(answers.arrived, dtype=np.float64)
        latencies = np.frombuffer(answers.finished, dtype=np.float64) - arrived
        if len(arrived) + answers.num_rejected != len(arrivals):
            raise RuntimeError(
                f"{family}: {len(arrivals)} requests arrived, {len(arrived)} were answered, {answers.num_rejected} refused"
            )
        missed = np.concatenate([arrived[latencies > slo_seconds], np.frombuffer(answers.rejected, dtype=np.float64)])
        num_minutes = len(reserved) // MINUTE_SECONDS
        edges = np.arange(num_minutes + 1) * MINUTE_SECONDS
        requests = np.histogram(arrivals, edges)[0]
        misses = np.histogram(missed, edges)[0]
        p50, p99 = np.percentile(latencies, [50, 99]) * 1e3 if len(latencies) else (0.0, 0.0)
        return cls(
            family=family,
            setting=setting,
            num_requests=len(arrivals),
            num_late=int((latencies > slo_seconds).sum()),
            num_rejected=answers.num_rejected,
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

    def to_json(self) -> dict[str, Any]:
        """Return the totals, ready for json.dumps."""
        names = (
            "num_requests",
            "num_late",
            "num_rejected",
            "p50_ms",
            "p99_ms",
            "cpu_hours",
            "most_cpus",
            "num_changes",
        )
        return {"family": self.family, "setting": self.setting, "miss_share": self.miss_share} | {
            name: getattr(self, name) for name in names
        }
