"""What a worker does once, before its first request: take its place among the workers, warm up, say what was decided."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.batching.padding import ModelInput
from ts_handlers.config.sections import BucketingConfig, CpuConfig, HandlerConfig
from ts_handlers.errors import ConfigError
from ts_handlers.machine import WORKERS_ENV, cpu_budget
from ts_handlers.machine.placement.worker import Declared, Placement
from ts_handlers.machine.share import threads_from_environ, workers_from_environ

DEFAULT_LENGTHS = (16, 64, 512)
"""Lengths to warm up with where there are neither lengths nor boundaries; cut to what the model takes."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """What was run before the first request.

    Attributes:
        shapes: (batch size, length in tokens, or pixels of an image) of each call.
        seconds: How long they took together.
    """

    shapes: tuple[tuple[int, int], ...]
    seconds: float


def take_place(config: CpuConfig, model: str, model_config: Mapping[str, Any], *, owns_process: bool) -> Placement:
    """Take this worker's place among the workers of the machine.

    Args:
        config: `handler.cpu`.
        model: The model's name and version.
        model_config: The whole model-config.yaml; its minWorkers counts where the environment says nothing.
        owns_process: Whether this process is this worker's alone.

    Raises:
        ConfigError: The environment counts workers or threads wrongly.
    """
    return Placement(
        model,
        expect_workers(model_config),
        threads=threads_from_environ() or config.threads,
        owns_process=owns_process,
        is_binding=config.placement == "auto",
    )


def expect_workers(model_config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Declared:
    """Return how many workers to expect: what the operator declared, else what TorchServe does by default.

    Raises:
        ConfigError: TS_HANDLERS_WORKERS is no positive integer.
    """
    of_all_models = workers_from_environ(environ)
    if of_all_models:
        return Declared(of_all_models, WORKERS_ENV)
    of_this_model = declared_workers(model_config)
    if of_this_model:
        return Declared(of_this_model, "minWorkers of this model", is_of_model=True)
    by_default = max(1, math.floor(cpu_budget().cpus))
    source = f"assumed one a CPU: neither {WORKERS_ENV} nor minWorkers is set"
    return Declared(by_default, source, is_of_model=True)


def check_task(config: HandlerConfig, task: str | None, handler: str) -> None:
    """Refuse an archive that was built for another task.

    Raises:
        ConfigError: `handler.task` is not the handler's.
    """
    if task is not None and config.task not in (None, task):
        raise ConfigError(f"handler.task is {config.task} and {handler} serves {task}; use the task's handler")


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
    """Run the shapes of the buckets, each with one sequence and with as many as share a call, and group sizes in between.

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
        most = max(1, min(bucketing.max_batch_size, bucketing.max_padded_tokens // length, *bucketing.group_sizes[-1:]))
        if item.size is None:
            length = max(length, item.length)
        else:
            length = 0
            most = max(1, min(bucketing.max_batch_size, bucketing.max_padded_pixels // item.num_positions))
        for size in sorted({1, most, *(size for size in bucketing.group_sizes if size < most)}):
            run([item] * size, BatchPlan(tuple(range(size)), length, padded_size=item.size))
            shapes.append((size, length or item.num_positions))
        if item.size is not None:  # images have no lengths
            break
    return Warmup(tuple(shapes), time.perf_counter() - started)


def decisions(name: str, config: HandlerConfig, calls: str, runtime: str, place: str, warmup: Warmup) -> str:
    """Return the one log line that says what was decided."""
    shapes = " ".join(f"{size}x{length}" for size, length in warmup.shapes) or "nothing"
    return (
        f"ts_handlers: {name} ready: {runtime}; {place}; calls of at most {config.bucketing.max_batch_size} {calls}; "
        f"warmed up {shapes} in {warmup.seconds:.2f} s"
    )


def describe_calls(bucketing: BucketingConfig, instance_type: str, *, pads_images: bool) -> str:
    """Say what bounds a call."""
    if instance_type == "image":
        pads = "padded where that costs less than a call" if pads_images else "of one size"
        return f"images and {bucketing.max_padded_pixels} pixels, {pads}"
    pads = f"padded to {list(bucketing.boundaries)}" if bucketing.boundaries else "padded to the longest"
    return f"sequences and {bucketing.max_padded_tokens} tokens, {pads}"


def _warmup_lengths(config: HandlerConfig, max_length: int | None) -> Sequence[int]:
    if not config.warmup.enabled:
        return ()
    chosen = config.warmup.lengths or config.bucketing.boundaries
    if chosen:
        return chosen
    longest = min(max_length or DEFAULT_LENGTHS[-1], config.bucketing.max_padded_tokens)
    return sorted({min(length, longest) for length in DEFAULT_LENGTHS})
