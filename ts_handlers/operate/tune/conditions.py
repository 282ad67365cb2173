"""What the figures of a search are of: the archive, the payloads, the load, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

from ts_handlers.machine import CpuBudget
from ts_handlers.machine.features import read_cpuinfo
from ts_handlers.machine.memory import memory_limit
from ts_handlers.operate.load.generator import LoadSpec
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.process.java import find_java

_ENGINES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
_PACKAGES = (*_ENGINES, "tokenizers", "torchserve", "transformers", "ts_handlers")
_VARIABLES = ("LD_PRELOAD", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_OUR_VARIABLES = "TS_HANDLERS_"
"""Beginning of the names of the variables that set something of ts_handlers."""


def read_conditions(archive: Archive, load: LoadSpec, budget: CpuBudget) -> dict[str, str]:
    """Say what figures of this archive, under this load, on this machine depend on."""
    payloads = hashlib.sha256()
    for payload in load.payloads:
        for part in (payload.content_type.encode(), payload.body):
            payloads.update(b"%d:" % len(part) + part)
    info = read_cpuinfo()
    installed = {each.name: each.version for each in distributions()}
    versions = [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    return {
        "model": f"{archive.model_name} {archive.version}",
        "archive": f"SHA-256 {_sha256(archive.path)}",
        "payloads": f"{len(load.payloads)}, SHA-256 {payloads.hexdigest()}",
        "load": ("as fast as answered" if load.rate is None else f"{load.rate:g} requests/s"),
        "requests in flight": str(load.concurrency),
        "seconds": f"{load.duration_s:g} measured after {load.warmup_s:g} of warm-up",
        "CPU": f"{info.model_name or platform.machine()}, {info.num_logical} logical CPUs",
        "instruction sets": ", ".join(info.instruction_sets) or "none that matter",
        "CPU budget": budget.describe(),
        "memory": f"{memory_limit() / 2**30:.1f} GiB",
        "versions": ", ".join((f"Python {platform.python_version()}", f"Java {find_java().version}", *versions)),
        "environment": speed_variables(os.environ) or "nothing that matters",
    }


def speed_variables(environ: Mapping[str, str]) -> str:
    """Return the variables that a worker inherits and that change its speed; an empty one is as good as none."""
    names = sorted(name for name in environ if name in _VARIABLES or name.startswith(_OUR_VARIABLES))
    return ", ".join(f"{name}={environ[name]}" for name in names if environ[name])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
