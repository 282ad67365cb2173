"""The settings `tune` searches: workers x threads x batch size x batch delay, the most telling first. Pure functions."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
MAX_BATCH_DELAYS_MS = (1, 5, 20)
"""1 ms is what `configure` writes: TorchServe makes 100 of 0."""

_CROSS_FIELDS = (("workers", "threads"), ("batch_size",), ("max_batch_delay_ms",))
"""The axes of the space. Workers and threads divide the same CPUs, so they are one axis."""


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the search.

    Attributes:
        workers: Worker processes.
        threads: Threads of each worker's pools.
        batch_size: Requests a worker takes at once, at most.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
    """

    workers: int
    threads: int
    batch_size: int
    max_batch_delay_ms: int

    def describe(self) -> str:
        """Say the setting in a few words."""
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} x {self.threads} thread{'s' * (self.threads > 1)}"
        delay = "" if self.batch_size == 1 else f", delay {self.max_batch_delay_ms} ms"
        return f"{workers}, batch {self.batch_size}{delay}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the machine and the load leave to search.

    Attributes:
        cpus: The CPU budget, a float.
        max_workers: Workers the memory holds.
        max_batch_size: Requests that can wait at once: larger batches never fill.
        is_threads_free: Whether the handler can be told its threads; else they are its share of the CPUs.
    """

    cpus: float
    max_workers: int
    max_batch_size: int
    is_threads_free: bool = True


def candidates(default: Setting, bounds: Bounds, seed: int = 0) -> tuple[Setting, ...]:
    """Return every setting worth a trial, each once: whoever takes the first n has a sensible spread.

    First the default; then what differs from it on one axis, the axes in turn; then the other combinations, shuffled.
    """
    shapes = _shapes(bounds)
    batches = _batches(default, bounds)
    shape_only = [replace(default, workers=workers, threads=threads) for workers, threads in shapes]
    size_only = [
        replace(default, batch_size=size) for size in _by_distance({size for size, _ in batches}, default.batch_size)
    ]
    delay_only = [replace(default, max_batch_delay_ms=delay) for delay in sorted({delay for _, delay in batches})]
    near = _take_turns(shape_only, size_only, delay_only)
    rest = [Setting(*shape, *batch) for shape, batch in itertools.product(sorted(shapes), sorted(batches))]
    random.Random(seed).shuffle(rest)  # noqa: S311 (a spread, not a secret)
    return tuple(dict.fromkeys(_canonical(setting, default) for setting in (default, *near, *rest)))


def cross(default: Setting, ranked: Sequence[Setting]) -> Setting:
    """Return the default with the best value of each axis.

    Args:
        default: The setting the others differ from.
        ranked: Settings that were measured, best first; those that differ from the default on one axis count.
    """
    crossed = default
    for fields in _CROSS_FIELDS:
        for setting in ranked:
            value = {name: getattr(setting, name) for name in fields}
            if replace(default, **value) == setting:  # it differs on this axis only, or is the default
                crossed = replace(crossed, **value)
                break
    return _canonical(crossed, default)


def max_workers(memory_bytes: int, worker_bytes: int) -> int:
    """Return how many workers the memory holds, at least 1; a quarter is the frontend's and everybody else's."""
    return max(1, memory_bytes * 3 // 4 // worker_bytes)


def _shapes(bounds: Bounds) -> list[tuple[int, int]]:
    """Return (workers, threads): powers of two that divide the CPUs, one CPU left free, and more workers than CPUs.

    More workers than CPUs have one thread each: while one decodes, another computes. More threads than that only take
    CPUs from one another.
    """
    cpus = max(1, math.floor(bounds.cpus))
    powers = [2**power for power in range(cpus.bit_length())]
    counts = dict.fromkeys((cpus, 2 * cpus, cpus // 2, cpus - 1, math.ceil(1.5 * cpus), *reversed(powers)))
    shapes = []
    for workers in counts:
        if not 1 <= workers <= bounds.max_workers:
            continue
        most = max(1, cpus // workers)
        shapes += [(workers, most), (workers, 1)] if bounds.is_threads_free else [(workers, most)]
    return list(dict.fromkeys(shapes))


def _batches(default: Setting, bounds: Bounds) -> list[tuple[int, int]]:
    sizes = {size for size in BATCH_SIZES if size <= max(1, bounds.max_batch_size)} | {default.batch_size}
    delays = {*MAX_BATCH_DELAYS_MS, default.max_batch_delay_ms}
    return [*itertools.product(sizes, delays)]


def _canonical(setting: Setting, default: Setting) -> Setting:
    """Give batches of one the default's delay: they never wait, so that settings which differ in it are the same."""
    return setting if setting.batch_size > 1 else replace(setting, max_batch_delay_ms=default.max_batch_delay_ms)


def _by_distance(values: Iterable[int], origin: int) -> list[int]:
    return sorted(values, key=lambda value: (abs(math.log2(value / origin)), value))


def _take_turns(*series: Sequence[Setting]) -> list[Setting]:
    rounds = itertools.zip_longest(*series)
    return [setting for turn in rounds for setting in turn if setting is not None]
