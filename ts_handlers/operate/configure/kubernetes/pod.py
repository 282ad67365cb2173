"""What a pod needs, from the same plan as config.properties: CPU, memory, disk and times. Pure but for sizes of archives."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import BuildReport
from ts_handlers.operate.configure.plan import Options, Plan, heap_mb_of, make_plan
from ts_handlers.operate.memory import MIB, MemoryPlan, memory_of
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.process.frontend import PROCESS_START_S, STOP_GRACE_S

DEFAULT_CPUS = 2
"""CPUs of a pod where nobody says: small pods follow the load closely, and with two workers one can fail."""

SETTLE_S = 10
"""Until no node sends requests to a pod that is to end any more."""

DRAIN_MARGIN_S = 10
STARTUP_PERIOD_S = 5
"""`periodSeconds` of the startup probe in the base."""

_MEMORY_STEP_MB = 64
_UNBOUNDED_MB = 2**40
_RUN_MB = 640
"""Logs: two of them, six files of 50 MB each; tokens."""
_CONTAINER_LOG_MB = 128
"""What the container prints; the kubelet counts it, too."""
_LEAST_STORE_MB, _LEAST_SCRATCH_MB = 1024, 1280
_COPIES = 3
"""A model as it is, and the file that workers map: with its weights as they are and as kernels want them."""
_SCRATCH_MARGIN_MB = 256
"""Beside the unpacked archives: sockets and Java's native libraries."""
_LEAST_DEADLINE_S = 600


@dataclass(frozen=True, slots=True)
class Pod:
    """What one pod needs.

    Attributes:
        cpu: CPUs, as Kubernetes writes them.
        memory_mb: Memory, MiB.
        model_store_mb: Volume of the archives, MiB.
        scratch_mb: Volume of what TorchServe unpacks, MiB.
        run_mb: Volume of logs and tokens, MiB.
        storage_mb: All of them and the container's log, MiB.
        startup_failures: `failureThreshold` of the startup probe.
        drain_timeout_s: How long the preStop hook may wait.
        grace_s: `terminationGracePeriodSeconds`.
        deadline_s: `progressDeadlineSeconds`.
        response_timeout_s: The longest that a request may take.
    """

    cpu: str
    memory_mb: int
    model_store_mb: int
    scratch_mb: int
    run_mb: int
    storage_mb: int
    startup_failures: int
    drain_timeout_s: int
    grace_s: int
    deadline_s: int
    response_timeout_s: int


def plan_pod(
    archives: Sequence[Archive],
    reports: Mapping[tuple[str, str], BuildReport],
    options: Options,
    *,
    cpus: float | None = None,
    max_cpus: float | None = None,
    memory_mb: int | None = None,
) -> Plan:
    """Plan a pod of these models.

    Args:
        archives: The models.
        reports: What their builds measured.
        options: What the operator asks for.
        cpus: CPUs of a pod; None: DEFAULT_CPUS, or one for each worker that cannot be left out.
        max_cpus: CPUs a pod may grow to while it runs; its memory cannot, and is for the workers it has then.
        memory_mb: Memory of a pod in MiB; None: what its workers need.

    Raises:
        OperatorError: The memory is not given and no report says what a worker needs, or the workers do not fit.
    """
    if cpus is None:
        cpus = float(max(DEFAULT_CPUS, len(archives) * max(1, options.gpus)))
    if max_cpus is not None and max_cpus < cpus:
        raise OperatorError(f"--max-cpus {max_cpus:g} is less than the {cpus:g} CPUs a pod starts with; give more")
    if memory_mb is None:
        memory_mb = _memory_for(archives, reports, options, max_cpus or cpus)
    return make_plan(archives, cpus, options, memory_bytes=memory_mb * MIB, reports=reports)


def _memory_for(
    archives: Sequence[Archive], reports: Mapping[tuple[str, str], BuildReport], options: Options, cpus: float
) -> int:
    """Return the least memory, MiB, in which the workers fit that the CPUs are worth."""
    measured = {key: report.rss_mb for key, report in reports.items() if report.rss_mb}
    unknown = [archive.path.name for archive in archives if (archive.model_name, archive.version) not in measured]
    if unknown:
        raise OperatorError(
            f"no build report says how much memory {', '.join(unknown)} takes, so a pod's memory cannot be chosen; copy "
            "NAME.build.json beside NAME.mar, or give --memory-mb"
        )
    plan = make_plan(archives, cpus, options, memory_bytes=_UNBOUNDED_MB * MIB, reports=reports)
    workers = [model.min_workers for model in plan.models]
    rss_mb = [measured[model.name, model.version] for model in plan.models]
    memory_mb = math.ceil(memory_of(workers, rss_mb) / _MEMORY_STEP_MB) * _MEMORY_STEP_MB
    while not MemoryPlan(memory_mb, heap_mb_of(memory_mb * MIB)).holds(workers, rss_mb):
        memory_mb += _MEMORY_STEP_MB
    return memory_mb


def most_workers(
    plan: Plan,
    archives: Sequence[Archive],
    reports: Mapping[tuple[str, str], BuildReport],
    options: Options,
    max_cpus: float,
) -> dict[str, int]:
    """Return the workers of each model in a pod of this plan that has grown to `max_cpus`.

    Raises:
        OperatorError: Two archives are versions of one model: whose workers are scaled could not be told.
    """
    grown = make_plan(archives, max_cpus, options, memory_bytes=round(plan.memory.limit_mb) * MIB, reports=reports)
    workers = {model.name: model.min_workers for model in grown.models}
    if len(workers) < len(grown.models):
        raise OperatorError(
            "--max-cpus with several versions of one model: workers are scaled by name; serve one version"
        )
    return workers


def pod_of(plan: Plan, archives: Sequence[Archive]) -> Pod:
    """Return what a pod with this plan needs."""
    packed_mb = sum(archive.path.stat().st_size for archive in archives) / MIB
    unpacked_mb = sum(map(_unpacked_bytes, archives)) / MIB
    model_store_mb = max(_LEAST_STORE_MB, _rounded(packed_mb))
    scratch_mb = max(_LEAST_SCRATCH_MB, _rounded(_COPIES * unpacked_mb + _SCRATCH_MARGIN_MB))
    startup_s = PROCESS_START_S + max(model.startup_timeout_s for model in plan.models)
    response_s = max(model.response_timeout_s for model in plan.models)
    drain_s = SETTLE_S + response_s
    return Pod(
        cpu=quantity(plan.cpus),
        memory_mb=round(plan.memory.limit_mb),
        model_store_mb=model_store_mb,
        scratch_mb=scratch_mb,
        run_mb=_RUN_MB,
        storage_mb=model_store_mb + scratch_mb + _RUN_MB + _CONTAINER_LOG_MB,
        # `serve` gives up first, and says why
        startup_failures=math.ceil(startup_s / STARTUP_PERIOD_S) + 2,
        drain_timeout_s=drain_s,
        grace_s=drain_s + round(STOP_GRACE_S) + DRAIN_MARGIN_S,
        deadline_s=max(_LEAST_DEADLINE_S, startup_s + 310),
        response_timeout_s=response_s,
    )


def quantity(cpus: float) -> str:
    """Write a number of CPUs as Kubernetes does: 2, 1500m."""
    return f"{cpus:.0f}" if cpus == int(cpus) else f"{max(1, math.floor(cpus * 1000))}m"


def _rounded(size_mb: float) -> int:
    return math.ceil(size_mb / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _unpacked_bytes(archive: Archive) -> int:
    with zipfile.ZipFile(archive.path) as file:
        return sum(member.file_size for member in file.infolist())
