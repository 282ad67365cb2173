"""What `configure` decides, as a pure function: archives, their build reports, CPUs and memory in, a plan out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ts_handlers.build.report import BuildReport
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.model import Model, make_model
from ts_handlers.operate.configure.options import MAX_CPUS, Options
from ts_handlers.operate.configure.workers import count_workers, needed_mb
from ts_handlers.operate.memory import MIB, MemoryBudget
from ts_handlers.operate.torchserve.archives import Archive

MIN_JOB_QUEUE_SIZE = 100
LATENCY_QUEUE_PER_WORKER = 8
"""With the latency profile, requests that may wait for each worker: the last of them waits for about eight calls."""

_MAX_NETTY_THREADS, _MAX_NETTY_CLIENT_THREADS = 8, 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything config.properties needs to know that is not an address or a path.

    Attributes:
        cpus: The CPU budget.
        options: What the operator asked for.
        memory: What the memory allows.
        models: In load order: TorchServe takes the version it loads first as a model's default.
        reason: Why there are so many workers, in sentences; one a line.
    """

    cpus: float
    options: Options
    memory: MemoryBudget
    models: tuple[Model, ...]
    reason: str

    @property
    def num_workers(self) -> int:
        """Workers of all models together."""
        return sum(model.min_workers for model in self.models)

    @property
    def threads(self) -> int:
        """Threads that the budget leaves each worker."""
        return max(1, math.floor(self.cpus / max(1, self.num_workers)))

    @property
    def needed_mb(self) -> float:
        """Memory allowed for the workers whose memory was measured, MiB."""
        return needed_mb(self.models, [model.min_workers for model in self.models])

    @property
    def gpus(self) -> int:
        """GPUs the workers may use."""
        return self.options.gpus

    @property
    def job_queue_size(self) -> int:
        """Requests that may wait for one model."""
        if self.options.profile == "latency":
            return max(LATENCY_QUEUE_PER_WORKER * model.min_workers * model.batch_size for model in self.models)
        return max(MIN_JOB_QUEUE_SIZE, *(2 * model.max_workers * model.batch_size for model in self.models))

    @property
    def netty_threads(self) -> int:
        """Threads that read requests and write answers."""
        return max(2, min(math.ceil(self.cpus), _MAX_NETTY_THREADS))

    @property
    def netty_client_threads(self) -> int:
        """Threads that talk to the workers."""
        return max(1, min(math.ceil(self.cpus / 2), _MAX_NETTY_CLIENT_THREADS))


def make_plan(
    archives: Sequence[Archive],
    cpus: float,
    options: Options,
    *,
    memory_bytes: int,
    reports: Mapping[tuple[str, str], BuildReport] | None = None,
) -> Plan:
    """Decide workers, batches, queues and the frontend's own share.

    Args:
        archives: The models, at least one.
        cpus: The CPU budget, a float.
        options: What the operator asks for.
        memory_bytes: Memory this machine or container may use.
        reports: What the builds measured, by (model name, version).

    Raises:
        OperatorError: The budget is no sensible number, or the workers do not fit into the memory.
    """
    if not 0 < cpus <= MAX_CPUS:
        raise OperatorError(f"the CPU budget is {cpus:g}; give a number above 0 and up to {MAX_CPUS:g} with --cpus")
    memory = MemoryBudget(memory_bytes / MIB)
    newest_first = sorted(archives, key=lambda archive: _version_key(archive.version), reverse=True)
    defaults: dict[str, Archive] = {}
    models = []
    for archive in sorted(newest_first, key=lambda archive: archive.model_name):
        report = (reports or {}).get((archive.model_name, archive.version), BuildReport())
        is_default = defaults.setdefault(archive.model_name, archive) is archive
        models.append(make_model(archive, report, options, is_default=is_default))
    counts, reason = count_workers(models, cpus, options, memory)
    decided = (
        replace(model, min_workers=count, max_workers=model.max_workers or count)
        for model, count in zip(models, counts, strict=True)
    )
    return Plan(cpus, options, memory, tuple(decided), reason)


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: 1 worker, 2 workers."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people do: 1.10 is after 1.9, and 1.0 between 1.0rc1 and 1.0.1."""
    parts = re.findall(r"\d+|[^\W\d_]+", version)
    keys = [(2, int(part), "") if part.isdecimal() else (0, 0, part.lower()) for part in parts]
    return (*keys, (1, 0, ""))  # the end: after a word that makes it a pre-release, before one more number
