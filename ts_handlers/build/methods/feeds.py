"""Calibration samples as small batches, whose size bounds the memory that calibration takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ts_handlers.batching.bucketing import plan_batches, plan_images
from ts_handlers.batching.padding import ModelInput, pad_batch
from ts_handlers.build.quantize.graph import Feed
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.config.tasks import TASKS

GROUP = 64
"""Texts that are sorted by length together, so that little of a feed is padding."""

MAX_BATCH_SIZE, MAX_PADDED_TOKENS, MAX_PADDED_PIXELS = 8, 1024, 2**21
"""Most of one feed."""

CALL_OVERHEAD_TOKENS = 64.0
"""What a feed costs beside its tokens: reading out and counting activations."""


def feeds(dataset: Iterable[ModelInput], source: ModelSource) -> Iterator[Feed]:
    """Read samples in small batches: texts padded, images of one size each."""
    samples = iter(dataset)
    is_of_images = TASKS[source.task].instances == "image"
    max_batch_size = min(MAX_BATCH_SIZE, source.max_batch_size or MAX_BATCH_SIZE)
    while group := list(islice(samples, MAX_BATCH_SIZE if is_of_images else GROUP)):
        if is_of_images:
            sizes = [item.size or (0, 0) for item in group]
            plans = plan_images(sizes, max_batch_size=max_batch_size, max_padded_pixels=MAX_PADDED_PIXELS)
        else:
            plans = plan_batches(
                [item.length for item in group],
                max_batch_size=max_batch_size,
                max_padded_tokens=MAX_PADDED_TOKENS,
                call_overhead_tokens=CALL_OVERHEAD_TOKENS,
            )
        for plan in plans:
            yield pad_batch(group, plan, source.pad_values).arrays
