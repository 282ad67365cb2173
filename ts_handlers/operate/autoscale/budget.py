"""How many workers CPUs and memory allow, all models together: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ts_handlers.operate.autoscale.decide import Limit

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Budget:
    """What all workers together may take.

    Attributes:
        cpus: CPUs, the frontend's included.
        frontend_cpus: The frontend's part.
        memory_bytes: Bytes for workers; None where it is not known.
    """

    cpus: float
    frontend_cpus: float = 0.0
    memory_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model's workers take.

    Attributes:
        workers: Their number.
        cpus: CPUs of each.
        memory_bytes: Bytes of each; 0 where it is not known.
    """

    workers: int
    cpus: float
    memory_bytes: float = 0.0


def claimed_cpus(budget: Budget, claims: Collection[Claim]) -> float:
    """Return the CPUs of the frontend and of all these workers."""
    return budget.frontend_cpus + sum(claim.workers * claim.cpus for claim in claims)


def most_workers(budget: Budget, own: Claim, others: Collection[Claim]) -> Limit:
    """Return how many workers one model may have beside those of the others."""
    free_cpus = budget.cpus - claimed_cpus(budget, others)
    limit = Limit(_whole(free_cpus / own.cpus), f"{budget.cpus:g} CPUs, {own.cpus:g} for each worker{_beside(others)}")
    if budget.memory_bytes is None or own.memory_bytes <= 0:
        return limit
    free_bytes = budget.memory_bytes - sum(claim.workers * claim.memory_bytes for claim in others)
    by_memory = _whole(free_bytes / own.memory_bytes)
    if by_memory >= limit.workers:
        return limit
    total, each = budget.memory_bytes / _MIB, own.memory_bytes / _MIB
    return Limit(by_memory, f"{total:.0f} MiB for workers, {each:.0f} for each{_beside(others)}")


def _beside(others: Collection[Claim]) -> str:
    num_others = sum(claim.workers for claim in others)
    return f", beside {num_others} of other models" if num_others else ""


def _whole(workers: float) -> int:
    return max(0, math.floor(workers + 1e-9))
