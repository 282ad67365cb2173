"""Machines as sysfs describes them, written into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ts_handlers.machine.topology import format_cpu_list

Machine = Mapping[int, Sequence[Sequence[int]]]
"""Node number -> its cores, each the CPU numbers of its threads."""

DESKTOP: Machine = {0: [[0], [1], [2], [3]]}
SMT: Machine = {0: [[0, 4], [1, 5], [2, 6], [3, 7]]}
TWO_SOCKETS: Machine = {0: [[0, 8], [1, 9], [2, 10], [3, 11]], 1: [[4, 12], [5, 13], [6, 14], [7, 15]]}


def write_sysfs(root: Path, machine: Machine, *, siblings: str = "core_cpus_list") -> Path:
    """Write what the kernel says of a machine; `siblings` is the file's name, which Linux 5.3 changed."""
    for node, cores in machine.items():
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(format_cpu_list(cpu for core in cores for cpu in core) + "\n")
        for core in cores:
            for cpu in core:
                topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
                topology.mkdir(parents=True)
                (topology / siblings).write_text(format_cpu_list(core) + "\n")
    return root
