"""What a worker does once, before its first request: take its share of the CPUs, warm up, say what was decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ts_handlers.batch import ModelInput
from ts_handlers.bucketing import BatchPlan
from ts_handlers.config import CpuConfig, HandlerConfig
from ts_handlers.cpu import CpuBudget, CpuShare, count_workers, cpu_budget, cpu_share

DEFAULT_LENGTHS = (16, 64, 512)
"""Lengths to warm up with where there are neither lengths nor boundaries; cut to what the model takes."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """What was run before the first request.

    Attributes:
        shapes: (batch size, length in tokens) of each call.
        seconds: How long they took together.
    """

    shapes: tuple[tuple[int, int], ...]
    seconds: float


def take_cpu_share(config: CpuConfig, model_config: Mapping[str, Any]) -> tuple[CpuBudget, CpuShare]:
    """Read the machine's budget and this worker's share of it.

    Args:
        config: `handler.cpu`.
        model_config: The whole model-config.yaml; its minWorkers counts where the environment says nothing.

    Raises:
        ConfigError: The environment counts the workers wrongly.
    """
    budget = cpu_budget()
    num_workers, source = count_workers(budget, declared_workers(model_config))
    return budget, cpu_share(budget, num_workers, threads=config.threads, source=source)


def declared_workers(model_config: Mapping[str, Any]) -> int | None:
    """Return minWorkers of a model-config.yaml, where TorchServe heeds it: maxWorkers must be as large."""
    least, most = model_config.get("minWorkers"), model_config.get("maxWorkers")
    if type(least) is not int or type(most) is not int or not 0 < least <= most:
        return None
    return least


def warm_up(
    config: HandlerConfig,
    max_length: int | None,
    make_input: Callable[[int], ModelInput | None],
    run: Callable[[Sequence[ModelInput], BatchPlan], object],
) -> Warmup:
    """Run the shapes of the buckets, each with one sequence and with as many as share a call.

    Args:
        config: The handler's configuration.
        max_length: Longest sequence the model takes, in tokens; None: no limit.
        make_input: Makes an input of a length; returns None where the handler has no warm-up.
        run: Pads and runs one call.
    """
    bucketing = config.bucketing
    started = time.perf_counter()
    shapes = []
    for length in _warmup_lengths(config, max_length):
        item = make_input(length)
        if item is None:
            break
        most = max(1, min(bucketing.max_batch_size, bucketing.max_padded_tokens // length))
        for size in sorted({1, most}):
            run([item] * size, BatchPlan(tuple(range(size)), length))
            shapes.append((size, length))
    return Warmup(tuple(shapes), time.perf_counter() - started)


def decisions(
    name: str, config: HandlerConfig, runtime: str, budget: CpuBudget, share: CpuShare, warmup: Warmup
) -> str:
    """Return the one log line that says what was decided."""
    bucketing = config.bucketing
    buckets = f"padded to {list(bucketing.boundaries)}" if bucketing.boundaries else "padded to the longest"
    shapes = " ".join(f"{size}x{length}" for size, length in warmup.shapes) or "nothing"
    return (
        f"ts_handlers: {name} ready: {runtime}; {share.threads} threads of {budget.describe()}, "
        f"{share.num_workers} workers ({share.source}); calls of at most {bucketing.max_batch_size} sequences and "
        f"{bucketing.max_padded_tokens} tokens, {buckets}; warmed up {shapes} in {warmup.seconds:.2f} s"
    )


def _warmup_lengths(config: HandlerConfig, max_length: int | None) -> Sequence[int]:
    if not config.warmup.enabled:
        return ()
    chosen = config.warmup.lengths or config.bucketing.boundaries
    if chosen:
        return chosen
    longest = min(max_length or DEFAULT_LENGTHS[-1], config.bucketing.max_padded_tokens)
    return sorted({min(length, longest) for length in DEFAULT_LENGTHS})
