"""The CPU budget of this process, and the thread limits that keep a worker within its share of it.

budget = min(cgroup quota, affinity) in CPUs, a float; share = budget / workers; threads = max(1, floor(share)).
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.cgroup import cgroup_folders, read_lines
from ts_handlers.errors import ConfigError

logger = logging.getLogger(__name__)

WORKERS_ENV = "TS_HANDLERS_WORKERS"
"""Environment variable with the number of workers, of all models, that share this machine's budget."""

POOL_ENV = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables of thread pools, read when their library is loaded."""


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


@dataclass(frozen=True, slots=True)
class CpuShare:
    """What one worker takes of the budget.

    Attributes:
        cpus: Its share in CPUs, a float.
        threads: Threads for each pool in the process, at least 1.
        num_workers: Workers the budget was divided by.
        source: Where `num_workers` was read.
    """

    cpus: float
    threads: int
    num_workers: int
    source: str

    @property
    def is_exclusive(self) -> bool:
        """Whether every thread can have a CPU of its own, so that spinning harms nobody."""
        return self.cpus >= self.threads


def cpu_budget(root: Path = Path("/")) -> CpuBudget:
    """Read the budget of this process from its affinity mask and its cgroups (v1, v2 or both).

    Args:
        root: Where `proc` and the mount points of the cgroups are found; a fixture's folder in tests.
    """
    limits = list(_quotas(root))
    affinity = tuple(sorted(os.sched_getaffinity(0)))
    if not limits:
        return CpuBudget(affinity)
    quota, file = min(limits, key=lambda limit: limit[0])
    return CpuBudget(affinity, quota, file)


def count_workers(budget: CpuBudget, declared: int | None, environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """Return how many workers share the budget and where that was read.

    Args:
        budget: The budget; TorchServe's own default is a worker for each CPU, so that is assumed where nothing is said.
        declared: Workers this model says it has (`minWorkers`), used where the environment does not say.
        environ: The environment; `TS_HANDLERS_WORKERS` counts the workers of all models.

    Raises:
        ConfigError: `TS_HANDLERS_WORKERS` is no positive integer.
    """
    text = environ.get(WORKERS_ENV)
    if text is not None:
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise ConfigError(f"{WORKERS_ENV} is {text!r}; set it to the number of workers of all models, 1 or more")
        return int(text), WORKERS_ENV
    if declared:
        return declared, "minWorkers of this model"
    return max(1, math.floor(budget.cpus)), f"assumed one a CPU: neither {WORKERS_ENV} nor minWorkers is set"


def cpu_share(budget: CpuBudget, num_workers: int, *, threads: int | None = None, source: str = "given") -> CpuShare:
    """Divide the budget; `threads` overrides the arithmetic."""
    cpus = budget.cpus / num_workers
    return CpuShare(cpus, threads or max(1, math.floor(cpus)), num_workers, source)


def limit_threads(threads: int) -> None:
    """Give every pool of this process at most `threads` threads: torch, OpenMP, MKL, BLAS and tokenizers.

    Call it before the first parallel region. Libraries loaded later read the environment; those already loaded are told
    directly.
    """
    for name in POOL_ENV:
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    from threadpoolctl import threadpool_limits  # scans the loaded libraries, so only when a worker starts

    threadpool_limits(limits=threads)
    if "torch" in sys.modules:
        _limit_torch(threads)


def _limit_torch(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() == threads:
        return
    try:
        torch.set_num_interop_threads(threads)
    except RuntimeError as error:  # torch allows it once, before its first inter-op work
        logger.warning(
            "torch keeps %d inter-op threads instead of %d: %s",
            torch.get_num_interop_threads(),
            threads,
            str(error).splitlines()[0],
        )


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
