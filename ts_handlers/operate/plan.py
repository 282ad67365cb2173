"""What `configure` decides, as a pure function: archives and a CPU budget in, a plan out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ts_handlers.errors import OperatorError
from ts_handlers.operate.archives import Archive

YAML_TIMEOUT_S = 120
"""What TorchServe takes for either timeout when an archive has a model-config.yaml that does not set it."""

MIN_JOB_QUEUE_SIZE = 100
MIN_HEAP_MB, MAX_HEAP_MB = 256, 1024
SERIAL_GC_CPUS = 3
MAX_NETTY_THREADS, MAX_NETTY_CLIENT_THREADS = 8, 4


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may ask for.

    Attributes:
        workers: Workers of each model; None to share the budget.
        batch_size: Requests a worker takes at once, at most.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
        response_timeout_s: After so many seconds without an answer TorchServe kills a worker.
        startup_timeout_s: How long a worker may take to load its model.
        gpus: GPUs the workers may use.
    """

    workers: int | None = None
    batch_size: int = 8
    max_batch_delay_ms: int = 1
    response_timeout_s: int = 120
    startup_timeout_s: int = 300
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What one version of one model gets.

    Attributes:
        name: The model's name.
        version: Its version.
        mar_name: File name of its archive.
        is_default: Whether requests that name no version go to it.
        min_workers: Workers it starts with.
        max_workers: Workers it may be scaled to.
        batch_size: Requests a worker takes at once, at most.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
        response_timeout_s: Seconds a worker may take for a batch.
        startup_timeout_s: Seconds a worker may take to load.
        fixed: Keys its own model-config.yaml decides; TorchServe prefers them to config.properties.
    """

    name: str
    version: str
    mar_name: str
    is_default: bool
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_s: int
    startup_timeout_s: int
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything config.properties needs to know that is not an address or a path.

    Attributes:
        cpus: The CPU budget.
        models: In load order: TorchServe takes the version it loads first as a model's default.
        gpus: GPUs the workers may use.
        job_queue_size: Requests that may wait for one model.
        netty_threads: Threads that read requests and write answers.
        netty_client_threads: Threads that talk to the workers.
        java_cpus: CPUs the frontend may count on.
        heap_mb: Its largest heap.
        is_serial_gc: Whether its garbage is collected by one thread.
    """

    cpus: float
    models: tuple[ModelPlan, ...]
    gpus: int
    job_queue_size: int
    netty_threads: int
    netty_client_threads: int
    java_cpus: int
    heap_mb: int
    is_serial_gc: bool

    @property
    def num_workers(self) -> int:
        """Workers of all models together."""
        return sum(model.min_workers for model in self.models)


def make_plan(archives: Sequence[Archive], cpus: float, options: Options, *, memory_bytes: int) -> Plan:
    """Decide workers, batches, queues and the frontend's own share.

    Args:
        archives: The models, at least one.
        cpus: The CPU budget, a float.
        options: What the operator asks for.
        memory_bytes: Memory this machine or container may use.

    Raises:
        OperatorError: The budget is not above zero.
    """
    if not cpus > 0 or math.isinf(cpus):
        raise OperatorError(f"the CPU budget is {cpus:g}; give a number above 0 with --cpus")
    ordered = _load_order(archives)
    workers = share_workers(ordered, cpus, options)
    defaults: set[str] = set()
    models = []
    for archive, count in zip(ordered, workers, strict=True):
        models.append(_model_plan(archive, count, options, is_default=archive.model_name not in defaults))
        defaults.add(archive.model_name)
    java_cpus = math.ceil(cpus)
    return Plan(
        cpus=cpus,
        models=tuple(models),
        gpus=options.gpus,
        job_queue_size=max(MIN_JOB_QUEUE_SIZE, *(2 * model.max_workers * model.batch_size for model in models)),
        netty_threads=max(2, min(java_cpus, MAX_NETTY_THREADS)),
        netty_client_threads=max(1, min(math.ceil(cpus / 2), MAX_NETTY_CLIENT_THREADS)),
        java_cpus=java_cpus,
        heap_mb=max(MIN_HEAP_MB, min(memory_bytes // 8 // 2**20, MAX_HEAP_MB)),
        is_serial_gc=java_cpus <= SERIAL_GC_CPUS,
    )


def share_workers(archives: Sequence[Archive], cpus: float, options: Options) -> tuple[int, ...]:
    """Return the workers of each archive.

    A worker has one thread: two workers with one thread each serve more than one with two. So there are as many workers
    as whole CPUs, shared evenly, at least one for each model; with GPUs, one worker of each model on each GPU. An
    archive whose model-config.yaml sets its workers keeps them, because TorchServe would not listen to anything else.
    """
    fixed = [_fixed_workers(archive) for archive in archives]
    num_free = fixed.count(None)
    if options.workers is not None:
        shares = [options.workers] * num_free
    elif options.gpus:
        shares = [options.gpus] * num_free
    else:
        total = max(math.floor(cpus) - sum(count[0] for count in fixed if count), num_free)
        shares = [total // num_free + (index < total % num_free) for index in range(num_free)]
    free = iter(shares)
    return tuple(count[0] if count else next(free) for count in fixed)


def _fixed_workers(archive: Archive) -> tuple[int, int] | None:
    """Return (minWorkers, maxWorkers) of model-config.yaml where TorchServe would use them."""
    minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
    return (minimum, maximum) if minimum and maximum and maximum >= minimum else None


def _model_plan(archive: Archive, workers: int, options: Options, *, is_default: bool) -> ModelPlan:
    fixed_workers = _fixed_workers(archive)
    response, startup = options.response_timeout_s, options.startup_timeout_s
    fixed = ["minWorkers", "maxWorkers"] if fixed_workers else []
    if archive.settings is not None:
        response = archive.setting("responseTimeout") or YAML_TIMEOUT_S
        startup = archive.setting("startupTimeout") or YAML_TIMEOUT_S
        fixed += ["responseTimeout", "startupTimeout"]
    fixed += [key for key in ("batchSize", "maxBatchDelay") if archive.setting(key)]
    return ModelPlan(
        name=archive.model_name,
        version=archive.version,
        mar_name=archive.path.name,
        is_default=is_default,
        min_workers=workers,
        max_workers=fixed_workers[1] if fixed_workers else workers,
        batch_size=archive.setting("batchSize") or options.batch_size,
        max_batch_delay_ms=archive.setting("maxBatchDelay") or options.max_batch_delay_ms,
        response_timeout_s=response,
        startup_timeout_s=startup,
        fixed=tuple(fixed),
    )


def _load_order(archives: Sequence[Archive]) -> list[Archive]:
    """Return the archives by name, the newest version of each model first."""
    newest_first = sorted(archives, key=lambda archive: _version_key(archive.version), reverse=True)
    return sorted(newest_first, key=lambda archive: archive.model_name)


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people do: 1.10 is after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
