"""Where the CPU time of a request went: arithmetic over what a block measured, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STAGES = ("decode", "transform", "run", "format")
"""The stages a worker of ours times, ts_handlers_STAGE_seconds."""

MODEL_RUN = "worker: model run"
HOOKS = "worker: decode, transform"
FORMAT = "worker: format, JSON"
WORKER_REST = "worker: the rest (codec, sockets, metric lines, planning)"
JAVA = "Java frontend"
CLIENT = "load generator"
IDLE = "idle, or used by others"


@dataclass(frozen=True, slots=True)
class InProcessBlock:
    """The same work without a server, all processes together.

    Attributes:
        mode: `one` payload a call, or sorted `groups`.
        num_payloads: How many were done.
        payloads_per_second: Sum of the processes' rates.
        hooks_s: Time in decode and transform.
        run_s: Time in padding and the model.
        cpu_s: CPU time of the processes.
    """

    mode: str
    num_payloads: int
    payloads_per_second: float
    hooks_s: float
    run_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class ServedBlock:
    """A block of load on the server.

    Attributes:
        requests_per_second: Rate of answers with 2xx.
        p99_ms: Latency.
        num_errors: Other outcomes.
        num_requests: What the server counted in the time of the CPU figures below.
        java_s: CPU time of the frontend.
        java_threads_s: The same by kind of thread.
        worker_s: CPU time of the workers.
        worker_waiting_s: Time in which the workers were ready to run and had no CPU.
        stages_s: Time in each of STAGES, by the clock on the wall.
        client_ms: CPU time of the load generator for one request, in ms.
    """

    requests_per_second: float
    p99_ms: float | None
    num_errors: int
    num_requests: float
    java_s: float
    java_threads_s: Mapping[str, float]
    worker_s: float
    worker_waiting_s: float
    stages_s: Mapping[str, float]
    client_ms: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the same payloads in process, both ways, and through the server."""

    in_process: Sequence[InProcessBlock]
    served: ServedBlock

    @property
    def limit(self) -> InProcessBlock:
        """The faster of the ways in process."""
        return max(self.in_process, key=lambda block: block.payloads_per_second)

    @property
    def ratio(self) -> float:
        """The server's rate over the limit."""
        return self.served.requests_per_second / self.limit.payloads_per_second


def served_parts_ms(block: ServedBlock, num_cpus: float) -> dict[str, float]:
    """Return the CPU milliseconds of one request by where they went; together num_cpus / rate.

    The stages are timed by the clock on the wall. A worker's one thread never sleeps within them, so what they hold
    beside CPU time is waiting for a CPU, and it is taken out in the proportion the worker as a whole had of it.
    """
    if block.num_requests <= 0 or block.requests_per_second <= 0:
        return {}
    on_cpu = block.worker_s / (block.worker_s + block.worker_waiting_s) if block.worker_s else 0.0
    per_request = 1000.0 / block.num_requests
    stages = {name: block.stages_s[name] * on_cpu * per_request for name in STAGES}
    parts = {
        MODEL_RUN: stages["run"],
        HOOKS: stages["decode"] + stages["transform"],
        FORMAT: stages["format"],
        WORKER_REST: block.worker_s * per_request - sum(stages.values()),
        JAVA: block.java_s * per_request,
        CLIENT: block.client_ms,
    }
    return parts | {IDLE: num_cpus * 1000.0 / block.requests_per_second - sum(parts.values())}


def in_process_parts_ms(block: InProcessBlock, num_cpus: float) -> dict[str, float]:
    """Return the same of a block in process; there, only the model and the hooks take time."""
    if block.num_payloads <= 0 or block.payloads_per_second <= 0:
        return {}
    timed_s = block.hooks_s + block.run_s
    on_cpu = min(1.0, block.cpu_s / timed_s) if timed_s else 0.0
    per_payload = on_cpu * 1000.0 / block.num_payloads
    parts = {MODEL_RUN: block.run_s * per_payload, HOOKS: block.hooks_s * per_payload}
    return parts | {IDLE: num_cpus * 1000.0 / block.payloads_per_second - sum(parts.values())}


def median_parts(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each part over the rounds that have it."""
    names = dict.fromkeys(name for parts in many for name in parts)
    return {name: statistics.median(parts[name] for parts in many if name in parts) for name in names}


def largest(seconds: Mapping[str, float], num_requests: float, count: int = 6) -> list[tuple[str, float]]:
    """Return the kinds of threads that took most, in ms a request, largest first."""
    if num_requests <= 0:
        return []
    ordered = sorted(seconds.items(), key=lambda item: item[1], reverse=True)
    return [(name, value * 1000.0 / num_requests) for name, value in ordered[:count]]
