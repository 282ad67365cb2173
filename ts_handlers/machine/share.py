"""A worker's share of the budget: share = budget / workers; threads = max(1, floor(share))."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.errors import ConfigError
from ts_handlers.machine.budget import CpuBudget

WORKERS_ENV = "TS_HANDLERS_WORKERS"
"""Environment variable with the number of workers, of all models, that a TorchServe starts."""

THREADS_ENV = "TS_HANDLERS_THREADS"
"""Environment variable with the threads of every worker; it goes before `handler.cpu.threads` and the arithmetic."""


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


def cpu_share(
    budget: CpuBudget,
    num_workers: int,
    *,
    threads: int | None = None,
    source: str = "given",
    is_bound: bool = False,
) -> CpuShare:
    """Divide the budget.

    Args:
        budget: The budget.
        num_workers: Workers that share it.
        threads: Overrides the arithmetic.
        source: Where `num_workers` was read.
        is_bound: Whether the CPUs of the budget are one worker's own already, so that only the quota is divided.
    """
    quota = math.inf if budget.quota is None else budget.quota / num_workers
    cpus = min(float(len(budget.affinity)), quota) if is_bound else budget.cpus / num_workers
    return CpuShare(cpus, threads or max(1, math.floor(cpus)), num_workers, source)


def count_from(environ: Mapping[str, str], name: str, what: str) -> int | None:
    """Return a positive integer of the environment; None where it is not set.

    Raises:
        ConfigError: It is anything else.
    """
    text = environ.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} is {text!r}; set it to {what}, 1 or more")
    return int(text)


def workers_from_environ(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of workers the operator declared.

    Raises:
        ConfigError: It is no positive integer.
    """
    return count_from(environ, WORKERS_ENV, "the number of workers of all models")


def threads_from_environ(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return the threads of a worker the operator asked for.

    Raises:
        ConfigError: It is no positive integer.
    """
    return count_from(environ, THREADS_ENV, "the number of threads of each worker")
