"""How many workers CPUs and memory allow, all models together: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ts_handlers.operate.autoscale.decide import Limit

MIB = 2**20


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

    def claimed_cpus(self, claims: Collection[Claim]) -> float:
        """Return the CPUs of the frontend and of all these workers."""
        return self.frontend_cpus + sum(claim.workers * claim.cpus for claim in claims)

    def most_workers(self, own: Claim, others: Collection[Claim]) -> Limit:
        """Return how many workers one model may have beside those of the others."""
        num_others = sum(claim.workers for claim in others)
        beside = f", beside {num_others} of other models" if num_others else ""
        by_cpus = _whole((self.cpus - self.claimed_cpus(others)) / own.cpus)
        limit = Limit(by_cpus, f"{self.cpus:g} CPUs, {own.cpus:g} for each worker{beside}")
        if self.memory_bytes is None or own.memory_bytes <= 0:
            return limit
        free_bytes = self.memory_bytes - sum(claim.workers * claim.memory_bytes for claim in others)
        by_memory = _whole(free_bytes / own.memory_bytes)
        if by_memory >= by_cpus:
            return limit
        total, each = self.memory_bytes / MIB, own.memory_bytes / MIB
        return Limit(by_memory, f"{total:.0f} MiB for workers, {each:.0f} for each{beside}")


def _whole(workers: float) -> int:
    return max(0, math.floor(workers + 1e-9))
