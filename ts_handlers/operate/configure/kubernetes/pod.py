"""What a pod needs, from the same plan as config.properties: CPU, memory, disk and times. Pure but for sizes of archives."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.plan import Plan
from ts_handlers.operate.memory import MIB, MemoryBudget
from ts_handlers.operate.quantity import format_cpus
from ts_handlers.operate.torchserve.process.frontend import PROCESS_START_S, STOP_GRACE_S

SETTLE_S = 10
"""Until no node sends requests to a pod that is to end any more."""

_DRAIN_MARGIN_S = 10
_STARTUP_PERIOD_S = 5
"""`periodSeconds` of the startup probe in the base."""

_MEMORY_STEP_MB = 64
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


def memory_for(plan: Plan) -> int:
    """Return the least memory, MiB, in which a plan's workers fit.

    Raises:
        OperatorError: No report says what a worker needs.
    """
    unknown = [model.archive.path.name for model in plan.models if not model.report.rss_mb]
    if unknown:
        raise OperatorError(
            f"no build report says how much memory {', '.join(unknown)} takes, so a pod's memory cannot be chosen; copy "
            "NAME.build.json beside NAME.mar, or give --memory-mb"
        )
    memory_mb = _rounded(plan.needed_mb)
    while MemoryBudget(memory_mb).usable_mb < plan.needed_mb:
        memory_mb += _MEMORY_STEP_MB
    return memory_mb


def pod_of(plan: Plan) -> dict[str, Any]:
    """Return what a pod with this plan needs, by the names in the templates: `_mb` is MiB, `_s` seconds.

    `cpu` is as Kubernetes writes it. `storage_mb` is the disk of all: of archives (`model_store_mb`), of what TorchServe
    unpacks (`scratch_mb`), of logs and tokens (`run_mb`), of what the container prints.
    """
    archives = [model.archive.path for model in plan.models]
    packed_mb = sum(path.stat().st_size for path in archives) / MIB
    unpacked_mb = sum(map(_unpacked_bytes, archives)) / MIB
    model_store_mb = max(_LEAST_STORE_MB, _rounded(packed_mb))
    scratch_mb = max(_LEAST_SCRATCH_MB, _rounded(_COPIES * unpacked_mb + _SCRATCH_MARGIN_MB))
    startup_s = PROCESS_START_S + max(model.startup_timeout_s for model in plan.models)
    response_s = max(model.response_timeout_s for model in plan.models)
    drain_s = SETTLE_S + response_s
    return {
        "cpu": format_cpus(plan.cpus),
        "memory_mb": round(plan.memory.limit_mb),
        "model_store_mb": model_store_mb,
        "scratch_mb": scratch_mb,
        "run_mb": _RUN_MB,
        "storage_mb": model_store_mb + scratch_mb + _RUN_MB + _CONTAINER_LOG_MB,
        # `serve` gives up first, and says why
        "startup_failures": math.ceil(startup_s / _STARTUP_PERIOD_S) + 2,
        "drain_timeout_s": drain_s,
        "grace_s": drain_s + round(STOP_GRACE_S) + _DRAIN_MARGIN_S,
        "deadline_s": max(_LEAST_DEADLINE_S, startup_s + 310),
        "response_timeout_s": response_s,
    }


def _rounded(size_mb: float) -> int:
    return math.ceil(size_mb / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _unpacked_bytes(archive: Path) -> int:
    with zipfile.ZipFile(archive) as file:
        return sum(member.file_size for member in file.infolist())
