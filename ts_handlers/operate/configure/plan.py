"""What `configure` decides, as a pure function: archives, their build reports, CPUs and memory in, a plan out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import NO_REPORT, BuildReport
from ts_handlers.operate.configure.bodies import BodyPlan, plan_bodies
from ts_handlers.operate.configure.workers import Demand, Profile, WorkerPlan, plan_workers
from ts_handlers.operate.memory import MIB, MemoryPlan
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.models import DEFAULT_TIMEOUT_S

MIN_JOB_QUEUE_SIZE = 100
LATENCY_QUEUE_PER_WORKER = 8
"""With the latency profile, requests that may wait for each worker: the last of them waits for about eight calls."""

MIN_HEAP_MB, MAX_HEAP_MB = 256, 1024
SMALL_JVM_CPUS = 3
MAX_NETTY_THREADS, MAX_NETTY_CLIENT_THREADS = 8, 4
MAX_CPUS = 4096.0
MAX_BATCH_SIZE = 4096
"""Upper bounds of what makes sense; beyond them a number is a slip of the pen."""

BATCH_SIZES: Mapping[Profile, int] = {"throughput": 8, "latency": 1}
MAX_BATCH_DELAY_MS = 1
"""The smallest delay TorchServe takes: it makes 100 of 0."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may ask for.

    Attributes:
        profile: What the machine is to be good at; what is asked for below goes before it.
        workers: Workers of each model; None to share the budget.
        batch_size: Requests a worker takes at once, at most; None: the profile's.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
        response_timeout_s: After so many seconds without an answer TorchServe kills a worker.
        startup_timeout_s: How long a worker may take to load its model.
        gpus: GPUs the workers may use.
    """

    profile: Profile = "throughput"
    workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int = MAX_BATCH_DELAY_MS
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
        weight: Its share of the workers, against the other models' weights.
        rss_mb: Memory of a worker as its build measured it, MiB; None where it was not.
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
    weight: float = 1.0
    rss_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything config.properties needs to know that is not an address or a path.

    Attributes:
        cpus: The CPU budget.
        profile: What the machine is to be good at.
        workers: The workers, and why there are so many.
        memory: What the memory allows.
        bodies: How large requests and answers may be.
        models: In load order: TorchServe takes the version it loads first as a model's default.
        gpus: GPUs the workers may use.
        job_queue_size: Requests that may wait for one model.
        netty_threads: Threads that read requests and write answers.
        netty_client_threads: Threads that talk to the workers.
        java_cpus: CPUs the frontend may count on.
        heap_mb: Its largest heap.
        is_small_jvm: Whether it has so few CPUs that it collects garbage with one thread and compiles lightly.
    """

    cpus: float
    profile: Profile
    workers: WorkerPlan
    memory: MemoryPlan
    bodies: BodyPlan
    models: tuple[ModelPlan, ...]
    gpus: int
    job_queue_size: int
    netty_threads: int
    netty_client_threads: int
    java_cpus: int
    heap_mb: int
    is_small_jvm: bool

    @property
    def num_workers(self) -> int:
        """Workers of all models together."""
        return sum(model.min_workers for model in self.models)


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
        OperatorError: The budget is no sensible number, an archive's limits cannot be read, or the workers do not fit into
            the memory.
    """
    if not 0 < cpus <= MAX_CPUS:
        raise OperatorError(f"the CPU budget is {cpus:g}; give a number above 0 and up to {MAX_CPUS:g} with --cpus")
    heap_mb = heap_mb_of(memory_bytes)
    memory = MemoryPlan(memory_bytes / MIB, heap_mb)
    known = reports or {}
    demands = [
        Demand(archive, known.get((archive.model_name, archive.version), NO_REPORT))
        for archive in _load_order(archives)
    ]
    workers = plan_workers(demands, cpus, memory, profile=options.profile, workers=options.workers, gpus=options.gpus)
    defaults: set[str] = set()
    models = []
    for demand, count in zip(demands, workers.counts, strict=True):
        name = demand.archive.model_name
        models.append(_model_plan(demand, count, options, is_default=name not in defaults))
        defaults.add(name)
    java_cpus = math.ceil(cpus)
    return Plan(
        cpus=cpus,
        profile=options.profile,
        workers=workers,
        memory=memory,
        bodies=plan_bodies(archives, heap_mb),
        models=tuple(models),
        gpus=options.gpus,
        job_queue_size=_job_queue_size(models, options.profile),
        netty_threads=max(2, min(java_cpus, MAX_NETTY_THREADS)),
        netty_client_threads=max(1, min(math.ceil(cpus / 2), MAX_NETTY_CLIENT_THREADS)),
        java_cpus=java_cpus,
        heap_mb=heap_mb,
        is_small_jvm=java_cpus <= SMALL_JVM_CPUS,
    )


def heap_mb_of(memory_bytes: int) -> int:
    """Return the frontend's largest heap, MiB: an eighth of the memory, within bounds."""
    return max(MIN_HEAP_MB, min(memory_bytes // 8 // MIB, MAX_HEAP_MB))


def _job_queue_size(models: Sequence[ModelPlan], profile: Profile) -> int:
    if profile == "latency":
        return max(LATENCY_QUEUE_PER_WORKER * model.min_workers * model.batch_size for model in models)
    return max(MIN_JOB_QUEUE_SIZE, *(2 * model.max_workers * model.batch_size for model in models))


def _model_plan(demand: Demand, workers: int, options: Options, *, is_default: bool) -> ModelPlan:
    archive = demand.archive
    response, startup = options.response_timeout_s, options.startup_timeout_s
    fixed = ["minWorkers", "maxWorkers"] if demand.fixed else []
    if archive.settings is not None:
        response = archive.setting("responseTimeout") or DEFAULT_TIMEOUT_S
        startup = archive.setting("startupTimeout") or DEFAULT_TIMEOUT_S
        fixed += ["responseTimeout", "startupTimeout"]
    fixed += [key for key in ("batchSize", "maxBatchDelay") if archive.setting(key)]
    batch_size = archive.setting("batchSize") or options.batch_size or BATCH_SIZES[options.profile]
    if batch_size > MAX_BATCH_SIZE:
        raise OperatorError(
            f"{archive.path.name}: batches of {batch_size} requests are more than {MAX_BATCH_SIZE}; set a smaller "
            "batchSize in its model-config.yaml"
        )
    return ModelPlan(
        name=archive.model_name,
        version=archive.version,
        mar_name=archive.path.name,
        is_default=is_default,
        min_workers=workers,
        max_workers=demand.fixed[1] if demand.fixed else workers,
        batch_size=batch_size,
        max_batch_delay_ms=archive.setting("maxBatchDelay") or options.max_batch_delay_ms,
        response_timeout_s=response,
        startup_timeout_s=startup,
        fixed=tuple(fixed),
        weight=demand.report.weight,
        rss_mb=demand.report.rss_mb,
    )


def _load_order(archives: Sequence[Archive]) -> list[Archive]:
    """Return the archives by name, the newest version of each model first."""
    newest_first = sorted(archives, key=lambda archive: _version_key(archive.version), reverse=True)
    return sorted(newest_first, key=lambda archive: archive.model_name)


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people do: 1.10 is after 1.9, and 1.0 between 1.0rc1 and 1.0.1."""
    parts = re.findall(r"\d+|[^\W\d_]+", version)
    keys = [(2, int(part), "") if part.isdecimal() else (0, 0, part.lower()) for part in parts]
    return (*keys, (1, 0, ""))  # the end: after a word that makes it a pre-release, before one more number
