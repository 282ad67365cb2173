"""What the figures of a search are of: the archive, the payloads, the load, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from ts_handlers.cpu import CpuBudget
from ts_handlers.cpu.features import parse_cpuinfo
from ts_handlers.memory import memory_limit
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.process.java import find_java
from ts_handlers.operate.tune.results import Subject
from ts_handlers.operate.tune.trial import Load
from ts_handlers.operate.tune.working_copy import sha256

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tokenizers",
    "torch",
    "torchserve",
    "transformers",
    "ts_handlers",
)

_VARIABLES = ("LD_PRELOAD", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_OUR_VARIABLES = "TS_HANDLERS_"
"""Beginning of the names of the variables that set something of ts_handlers."""


def make_subject(archive: Archive, load: Load, budget: CpuBudget) -> Subject:
    """Say what a search of this archive, under this load, on this machine is of."""
    return Subject(
        model=f"{archive.model_name} {archive.version}",
        archive_sha256=sha256(archive.path),
        payloads_sha256=_payloads_sha256(load.payloads),
        load={
            "rate": load.rate,
            "concurrency": float(load.concurrency),
            "warm-up (s)": load.warmup_s,
            "payloads": float(len(load.payloads)),
        },
        machine=machine_facts(budget),
    )


def machine_facts(budget: CpuBudget) -> dict[str, str]:
    """Return what figures depend on: the CPUs, the memory, the versions of what runs, and its environment."""
    info = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    installed = {each.name: each.version for each in distributions()}
    versions = [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    return {
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


def _payloads_sha256(payloads: Sequence[Payload]) -> str:
    digest = hashlib.sha256()
    for payload in payloads:
        for part in (payload.content_type.encode(), payload.body):
            digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()
