"""The CPUs of this machine: the budget, a worker's share of it, its threads, and the slice of cores it runs on."""

from __future__ import annotations

from ts_handlers.machine.budget import CpuBudget, cpu_budget
from ts_handlers.machine.share import THREADS_ENV, WORKERS_ENV, CpuShare, cpu_share
from ts_handlers.machine.threads import POOL_ENV, change_threads, limit_threads

__all__ = [
    "POOL_ENV",
    "THREADS_ENV",
    "WORKERS_ENV",
    "CpuBudget",
    "CpuShare",
    "change_threads",
    "cpu_budget",
    "cpu_share",
    "limit_threads",
]
