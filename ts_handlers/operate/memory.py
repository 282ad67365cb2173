"""The memory that a server needs: of its frontend and of its workers. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 2**20

RSS_MARGIN = 1.3
"""A worker's memory over what `build` measured: that was one request in a fresh process, and allocators keep what the
largest batch needed."""

JVM_OVERHEAD_MB = 256
"""The frontend beyond its heap: class metadata, compiled code, thread stacks, network buffers."""

HEAD_ROOM = 0.1
"""Part of the memory left free: page cache for the model files, and peaks."""


_MIN_HEAP_MB, _MAX_HEAP_MB = 256, 1024


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What the memory allows.

    Attributes:
        limit_mb: Memory of the container, MiB.
    """

    limit_mb: float

    @property
    def heap_mb(self) -> int:
        """The frontend's largest heap, MiB: an eighth of the memory, within bounds."""
        return max(_MIN_HEAP_MB, min(int(self.limit_mb // 8), _MAX_HEAP_MB))

    @property
    def usable_mb(self) -> float:
        """What is left for workers, MiB."""
        return self.limit_mb * (1 - HEAD_ROOM) - self.heap_mb - JVM_OVERHEAD_MB


def memory_of(workers: Sequence[int], rss_mb: Sequence[float]) -> float:
    """Return the MiB of memory to allow for these workers."""
    return sum(count * worker_mb(rss) for count, rss in zip(workers, rss_mb, strict=True))


def worker_mb(rss_mb: float) -> float:
    """Return the MiB to allow for one worker whose build measured `rss_mb`."""
    return rss_mb * RSS_MARGIN
