"""The CPU budget of a process: min(cgroup quota, affinity) in CPUs, a float."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.machine.cgroup import cgroup_folders, read_lines


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """The CPUs this process may use.

    Attributes:
        affinity: CPU numbers of the affinity mask, ascending.
        quota: CPUs per second of the tightest cgroup on the way to the root; None where there is no limit.
        quota_file: The file the quota was read from; None where there is no limit.
    """

    affinity: tuple[int, ...]
    quota: float | None = None
    quota_file: Path | None = None

    @property
    def cpus(self) -> float:
        """The budget in CPUs: the smaller of quota and affinity."""
        count = float(len(self.affinity))
        return count if self.quota is None else min(count, self.quota)

    def describe(self) -> str:
        """Say the budget and where it comes from, in a few words."""
        quota = "no cgroup quota" if self.quota is None else f"cgroup quota {self.quota:g} ({self.quota_file})"
        return f"{self.cpus:g} CPUs (affinity {len(self.affinity)}, {quota})"


def cpu_budget(root: Path = Path("/"), affinity: Iterable[int] | None = None) -> CpuBudget:
    """Read the budget of this process from its affinity mask and its cgroups (v1, v2 or both).

    Args:
        root: Where `proc` and the mount points of the cgroups are found; a fixture's folder in tests.
        affinity: CPU numbers; by default this process's mask.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0) if affinity is None else affinity))
    limits = list(_quotas(root))
    if not limits:
        return CpuBudget(cpus)
    quota, file = min(limits, key=lambda limit: limit[0])
    return CpuBudget(cpus, quota, file)


def _quotas(root: Path) -> Iterator[tuple[float, Path]]:
    """Yield (CPUs, file) for each quota on this process's control groups."""
    for folder in cgroup_folders("cpu", root):
        file = folder.path / ("cpu.max" if folder.version == 2 else "cpu.cfs_quota_us")
        cpus = _read_v2(file) if folder.version == 2 else _read_v1(file)
        if cpus is not None:
            yield cpus, file


def _read_v2(file: Path) -> float | None:
    for line in read_lines(file):
        quota, _, period = line.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    return None


def _read_v1(file: Path) -> float | None:
    quota, period = read_lines(file), read_lines(file.with_name("cpu.cfs_period_us"))
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])
