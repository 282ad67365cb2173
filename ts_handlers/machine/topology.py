"""Which of a set of CPUs share a physical core and a NUMA node, as sysfs says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.machine.cgroup import read_lines


@dataclass(frozen=True, slots=True)
class Core:
    """One physical core, as far as this process may use it.

    Attributes:
        node: Number of its NUMA node.
        cpus: Its logical CPUs, ascending: one, or more where they are SMT siblings.
    """

    node: int
    cpus: tuple[int, ...]


def read_topology(cpus: Iterable[int], root: Path = Path("/")) -> tuple[Core, ...]:
    """Group CPUs by physical core, ordered by node and first CPU.

    A CPU sysfs says nothing about counts as a core of its own, on node 0 where it is in no node's list.

    Args:
        cpus: The CPUs this process may use; others are left out.
        root: Where `sys` is found; a fixture's folder in tests.
    """
    allowed = frozenset(cpus)
    nodes = {
        cpu: int(folder.name.removeprefix("node"))
        for folder in (root / "sys/devices/system/node").glob("node[0-9]*")
        for line in read_lines(folder / "cpulist")
        for cpu in parse_cpu_list(line)
    }
    groups = {tuple(sorted(_siblings(root, cpu) & allowed)) for cpu in allowed}
    return tuple(sorted((Core(nodes.get(group[0], 0), group) for group in groups), key=lambda c: (c.node, c.cpus)))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Read the kernel's list format: `0-3,8` is 0, 1, 2, 3, 8."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Write CPUs as the kernel does: 0, 1, 2, 3, 8 is `0-3,8`."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _siblings(root: Path, cpu: int) -> frozenset[int]:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the name before Linux 5.3
        for line in read_lines(folder / name):
            return frozenset(parse_cpu_list(line)) | {cpu}
    return frozenset({cpu})
