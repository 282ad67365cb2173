"""How many workers each model gets, and why: from CPUs, weights, memory and the profile. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.model import Model
from ts_handlers.operate.configure.options import Options
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN, MemoryBudget, memory_of, worker_mb
from ts_handlers.operate.torchserve.models import MAX_WORKERS

LATENCY_THREADS = 4
"""Threads beyond which one short sequence hardly gets faster; also what torch's launcher takes in its latency mode."""

LATENCY_GAIN_MS = 5.0
"""Below this, waking and joining threads costs about what they save."""


def count_workers(
    models: Sequence[Model], cpus: float, options: Options, memory: MemoryBudget
) -> tuple[tuple[int, ...], str]:
    """Decide the workers of each model.

    An archive whose model-config.yaml sets its workers keeps them: TorchServe would not listen to anything else.

    Args:
        models: The models, at least one.
        cpus: The CPU budget.
        options: What the operator asks for. Workers that are asked for, and those of GPUs, are not made fewer.
        memory: What the memory allows.

    Returns:
        The workers of each model, and why there are so many, in sentences; one a line.

    Raises:
        OperatorError: They do not fit into the memory, or are absurdly many.
    """
    free = [model for model in models if not model.min_workers]
    each = options.workers or options.gpus
    weights = [1.0 if each else model.report.weight for model in free]

    def spread(total: int) -> tuple[int, ...]:
        shares = iter(share_by_weight(total, weights))
        return tuple(model.min_workers or next(shares) for model in models)

    if each:
        most = least = each * len(free)
        asked = f"{each} for each model, as asked for with --workers."
        reason = asked if options.workers else "One of each model on each GPU."
    else:
        wanted, reason = _wanted(models, cpus, options)
        least = len(free)
        most = max(wanted - sum(model.min_workers for model in models), least)
    counts = spread(most)
    if sum(counts) > MAX_WORKERS:
        raise OperatorError(
            f"{sum(counts)} workers ({_list(models, counts)}) are more than {MAX_WORKERS}; ask for fewer with --workers "
            "or --cpus, or in the archive's model-config.yaml"
        )
    smaller = (spread(total) for total in range(most, least - 1, -1))
    fitting = next((found for found in smaller if needed_mb(models, found) <= max(0.0, memory.usable_mb)), None)
    if fitting is None:
        counts = spread(least)
        raise OperatorError(
            f"the workers do not fit into the memory: {_list(models, counts)} need {needed_mb(models, counts):.0f} MiB "
            f"({_needs(models)}), and of {memory.limit_mb:.0f} MiB {max(0.0, memory.usable_mb):.0f} are left beside the "
            f"frontend ({memory.heap_mb} MiB heap, {JVM_OVERHEAD_MB} MiB more) and {HEAD_ROOM:.0%} head room; "
            "give more memory (--memory-mb), ask for fewer workers, or serve fewer models here"
        )
    if fitting != counts:
        threads = math.floor(cpus / sum(fitting))
        instead = f": each has {threads} threads instead" if threads > 1 else ""
        reason += f"\nThe CPUs would take {sum(counts)}, the memory holds {sum(fitting)}{instead}."
    return fitting, f"{reason}\n{_memory_reason(models, memory, needed_mb(models, fitting))}"


def needed_mb(models: Sequence[Model], counts: Sequence[int]) -> float:
    """Return the memory to allow for so many workers of these models, MiB; one that was not measured is not counted."""
    return memory_of(counts, [model.report.rss_mb or 0.0 for model in models])


def share_by_weight(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` in proportion to weights, at least one each: largest remainder among those that get more than one.

    Returns:
        Shares whose sum is max(total, number of weights).
    """
    large = list(range(len(weights)))
    while True:
        left, sum_weights = total - (len(weights) - len(large)), sum(weights[index] for index in large)
        quotas = {index: left * weights[index] / sum_weights for index in large}
        if all(quota >= 1 for quota in quotas.values()):
            break
        large = [index for index in large if quotas[index] >= 1]
    shares = [math.floor(quotas.get(index, 1)) for index in range(len(weights))]
    missing = max(total, len(weights)) - sum(shares)
    for index in sorted(large, key=lambda index: (shares[index] - quotas[index], index))[:missing]:
        shares[index] += 1
    return tuple(shares)


def _wanted(models: Sequence[Model], cpus: float, options: Options) -> tuple[int, str]:
    """Return the workers the CPUs are worth, and why."""
    whole = max(1, math.floor(cpus))
    shared = "\nModels share them by their weights." if len(models) > 1 else ""
    if options.profile == "throughput":
        return whole, (
            "One for each whole CPU, with one thread: they serve a little more than fewer with more threads, and one that\n"
            f"fails takes less with it.{shared}"
        )
    times = [model.report.single_ms for model in models]
    known = max((time for time in times if time), default=None)
    if known is not None and known < LATENCY_GAIN_MS and None not in times:
        return whole, (
            f"One for each whole CPU, with one thread: a call takes under {LATENCY_GAIN_MS:g} ms there, so that more "
            f"threads would not make it faster.{shared}"
        )
    is_slow = known is not None and known >= LATENCY_GAIN_MS
    measured = f"a call takes {known:g} ms on one thread" if is_slow else "no build report says what a call takes"
    return math.ceil(whole / LATENCY_THREADS), (
        f"Up to {LATENCY_THREADS} threads each, so that a single request is computed by several CPUs:"
        f"\n{measured}.{shared}"
    )


def _memory_reason(models: Sequence[Model], memory: MemoryBudget, needed_mb: float) -> str:
    unknown = [model.label for model in models if model.report.rss_mb is None]
    lines = []
    if needed_mb:
        lines.append(
            f"Memory: {needed_mb:.0f} MiB for workers and {memory.heap_mb + JVM_OVERHEAD_MB} for the frontend, of "
            f"{memory.limit_mb:.0f} less {HEAD_ROOM:.0%} head room;\n{_needs(models)}."
        )
    if unknown:
        lines.append(f"No build report says how much memory {', '.join(unknown)} takes: not counted.")
    return "\n".join(lines)


def _needs(models: Sequence[Model]) -> str:
    return ", ".join(
        f"{model.label}: {worker_mb(model.report.rss_mb):.0f} each, {model.report.rss_mb:.0f} measured x {RSS_MARGIN:g}"
        for model in models
        if model.report.rss_mb
    )


def _list(models: Sequence[Model], counts: Sequence[int]) -> str:
    return ", ".join(f"{count} x {model.label}" for model, count in zip(models, counts, strict=True))
