"""The machine that serves: its CPUs, its memory, its GPUs as TorchServe counts them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.machine import CpuBudget, cpu_budget
from ts_handlers.machine.cgroup import read_lines
from ts_handlers.machine.memory import memory_limit
from ts_handlers.machine.topology import parse_cpu_list
from ts_handlers.operate.memory import MIB

_SMI = ("rocm-smi", "nvidia-smi", "xpu-smi")
"""The commands by which TorchServe finds GPUs, in its order; without one of them it has none."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that serves.

    Attributes:
        budget: The CPUs of this process.
        num_node_cpus: CPUs of the whole machine.
        memory_mb: Memory this process may use, MiB.
        python: The `python` of PATH; None where there is none.
        gpus: GPUs that TorchServe finds; None where that is not known.
    """

    budget: CpuBudget
    num_node_cpus: int
    memory_mb: float
    python: str | None = None
    gpus: int | None = None


def this_machine(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Look at the machine this runs on."""
    online = read_lines(root / "sys/devices/system/cpu/online")
    tools = [name for name in _SMI if shutil.which(name, path=environ.get("PATH"))]
    nvidia = root / "proc/driver/nvidia/gpus"
    gpus = len(list(nvidia.iterdir())) if tools[:1] == ["nvidia-smi"] and nvidia.is_dir() else None
    return Machine(
        budget=cpu_budget(root),
        num_node_cpus=len(parse_cpu_list(online[0])) if online else os.cpu_count() or 1,
        memory_mb=memory_limit(root) / MIB,
        python=shutil.which("python", path=environ.get("PATH")),
        gpus=gpus if tools else 0,
    )
