"""How many workers each model gets, and why: from CPUs, weights, memory and the profile. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import BuildReport
from ts_handlers.operate.configure.shares import share_by_weight
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN, MemoryPlan, memory_of, worker_mb
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.models import MAX_WORKERS

Profile = Literal["throughput", "latency"]

LATENCY_THREADS = 4
"""Threads beyond which one short sequence hardly gets faster; also what torch's launcher takes in its latency mode."""

LATENCY_GAIN_MS = 5.0
"""Below this, waking and joining threads costs about what they save."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One model, as far as its number of workers is concerned.

    Attributes:
        archive: The archive.
        report: What its build measured.
    """

    archive: Archive
    report: BuildReport

    @property
    def fixed(self) -> tuple[int, int] | None:
        """(minWorkers, maxWorkers) of model-config.yaml where TorchServe would use them."""
        minimum, maximum = self.archive.setting("minWorkers"), self.archive.setting("maxWorkers")
        return (minimum, maximum) if minimum and maximum and maximum >= minimum else None

    @property
    def label(self) -> str:
        """Its name and version."""
        return f"{self.archive.model_name} {self.archive.version}"


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The workers, and why there are so many.

    Attributes:
        counts: Workers of each model, in the order of the demands.
        threads: Threads the budget leaves each.
        needed_mb: Memory allowed for the workers whose memory was measured, MiB.
        reason: Why, in sentences; one a line.
    """

    counts: tuple[int, ...]
    threads: int
    needed_mb: float
    reason: str


def plan_workers(
    demands: Sequence[Demand],
    cpus: float,
    memory: MemoryPlan,
    *,
    profile: Profile = "throughput",
    workers: int | None = None,
    gpus: int = 0,
) -> WorkerPlan:
    """Decide the workers of each model.

    An archive whose model-config.yaml sets its workers keeps them: TorchServe would not listen to anything else.

    Args:
        demands: The models, at least one.
        cpus: The CPU budget.
        memory: What the memory allows.
        profile: What the machine is to be good at.
        workers: Workers of each model that the operator asks for; None to decide.
        gpus: GPUs; with them each model has one worker on each.

    Raises:
        OperatorError: They do not fit into the memory, or are absurdly many.
    """
    free = [demand for demand in demands if demand.fixed is None]
    num_fixed = sum(demand.fixed[0] for demand in demands if demand.fixed)
    if workers is not None:
        shares, reason = (workers,) * len(free), f"{workers} for each model, as asked for with --workers."
    elif gpus:
        shares, reason = (gpus,) * len(free), "One of each model on each GPU."
    else:
        wanted, reason = _wanted(demands, cpus, profile)
        shares = share_by_weight(max(wanted - num_fixed, len(free)), [demand.report.weight for demand in free])
    counts = _merge(demands, shares)
    if sum(counts) > MAX_WORKERS:
        raise OperatorError(
            f"{sum(counts)} workers ({_list(demands, counts)}) are more than {MAX_WORKERS}; ask for fewer with --workers "
            "or --cpus, or in the archive's model-config.yaml"
        )
    can_shrink = workers is None and not gpus
    fitting = _fit(demands, counts, memory, can_shrink=can_shrink)
    threads = max(1, math.floor(cpus / max(1, sum(fitting))))
    if fitting != counts:
        instead = f": each has {threads} threads instead" if threads > 1 else ""
        reason += f"\nThe CPUs would take {sum(counts)}, the memory holds {sum(fitting)}{instead}."
    needed_mb = memory_of(fitting, _rss(demands))
    reason += f"\n{_memory_reason(demands, memory, needed_mb)}"
    return WorkerPlan(fitting, threads, needed_mb, reason)


def _wanted(demands: Sequence[Demand], cpus: float, profile: Profile) -> tuple[int, str]:
    """Return the workers the CPUs are worth, and why."""
    whole = max(1, math.floor(cpus))
    shared = "\nModels share them by their weights." if len(demands) > 1 else ""
    if profile == "throughput":
        return whole, (
            "One for each whole CPU, with one thread: they serve a little more than fewer with more threads, and one that\n"
            f"fails takes less with it.{shared}"
        )
    slow = [demand for demand in demands if (demand.report.latency_ms or math.inf) >= LATENCY_GAIN_MS]
    if not slow:
        return whole, (
            f"One for each whole CPU, with one thread: a call takes under {LATENCY_GAIN_MS:g} ms there, so that more "
            f"threads would not make it faster.{shared}"
        )
    known = max((demand.report.latency_ms for demand in slow if demand.report.latency_ms), default=None)
    measured = f"a call takes {known:g} ms on one thread" if known else "no build report says what a call takes"
    return math.ceil(whole / LATENCY_THREADS), (
        f"Up to {LATENCY_THREADS} threads each, so that a single request is computed by several CPUs:"
        f"\n{measured}.{shared}"
    )


def _merge(demands: Sequence[Demand], shares: Sequence[int]) -> tuple[int, ...]:
    free = iter(shares)
    return tuple(demand.fixed[0] if demand.fixed else next(free) for demand in demands)


def _fit(
    demands: Sequence[Demand], counts: tuple[int, ...], memory: MemoryPlan, *, can_shrink: bool
) -> tuple[int, ...]:
    """Return the most workers, up to `counts`, that the memory holds; their proportions stay."""
    rss = _rss(demands)
    if not any(rss) or memory.holds(counts, rss):
        return counts
    free = [demand for demand in demands if demand.fixed is None]
    num_fixed = sum(demand.fixed[0] for demand in demands if demand.fixed)
    most = sum(counts) - num_fixed
    least = len(free) if can_shrink else most
    for total in range(most - 1, least - 1, -1):
        fewer = _merge(demands, share_by_weight(total, [demand.report.weight for demand in free]) if free else ())
        if memory.holds(fewer, rss):
            return fewer
    smallest = _merge(demands, (1,) * len(free)) if can_shrink else counts
    raise OperatorError(
        f"the workers do not fit into the memory: {_list(demands, smallest)} need {memory_of(smallest, rss):.0f} MiB "
        f"({_needs(demands)}), and of {memory.limit_mb:.0f} MiB {max(0.0, memory.usable_mb):.0f} are left beside the "
        f"frontend ({memory.heap_mb} MiB heap, {JVM_OVERHEAD_MB} MiB more) and {HEAD_ROOM:.0%} head room; "
        "give more memory (--memory-mb), ask for fewer workers, or serve fewer models here"
    )


def _rss(demands: Sequence[Demand]) -> list[float]:
    return [demand.report.rss_mb or 0.0 for demand in demands]


def _memory_reason(demands: Sequence[Demand], memory: MemoryPlan, needed_mb: float) -> str:
    unknown = [demand.label for demand in demands if demand.report.rss_mb is None]
    lines = []
    if needed_mb:
        lines.append(
            f"Memory: {needed_mb:.0f} MiB for workers and {memory.heap_mb + JVM_OVERHEAD_MB} for the frontend, of "
            f"{memory.limit_mb:.0f} less {HEAD_ROOM:.0%} head room;\n{_needs(demands)}."
        )
    if unknown:
        lines.append(f"No build report says how much memory {', '.join(unknown)} takes: not counted.")
    return "\n".join(lines)


def _needs(demands: Sequence[Demand]) -> str:
    return ", ".join(
        f"{demand.label}: {worker_mb(demand.report.rss_mb):.0f} each, {demand.report.rss_mb:.0f} measured x {RSS_MARGIN:g}"
        for demand in demands
        if demand.report.rss_mb
    )


def _list(demands: Sequence[Demand], counts: Sequence[int]) -> str:
    return ", ".join(f"{count} x {demand.label}" for demand, count in zip(demands, counts, strict=True))
