"""Which shapes get graphs of their own: a few boundaries at the lengths of real texts.

A graph of a fixed shape saves OpenVINO planning its memory and picking its kernels anew. A worker compiles as many of them,
in this order, as `runtime.max_memory_mb` has room for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ts_handlers.build.engine import Material
from ts_handlers.build.samples import MAX_LENGTH

STEP = 8
"""Boundaries are multiples of it: kernels work on so many columns at once."""

GROUP_SIZES = (1, 4)
"""Rows of a call; a lone request is always one of them."""

DEFAULT: tuple[int, ...] = (16, 32, 64, 128)
"""Without calibration texts nobody knows the lengths; a text as long as a tweet is padded by a third."""

QUANTILES = (0.25, 0.5, 0.75, 0.95)
"""Of the texts' lengths; longer ones go through the graph for any shape."""

MAX_TEXTS = 2000
"""Calibration texts whose lengths count."""

CALL_OVERHEAD_TOKENS = 8.0


def shape_sections(material: Material) -> tuple[dict[str, dict[str, Any]], str]:
    """Return `handler.bucketing` for an engine's shapes, and what they were chosen by."""
    source, section = material.source, material.section
    if not source.can_pad:
        return {}, "the model: padding changes its answers, so that texts have no shapes in common"
    max_length, boundaries = material.max_length, DEFAULT
    if source.task == "question-answering":  # a window of the context
        max_length = min(max_length, int(section.get("output", {}).get("max_seq_len") or MAX_LENGTH))
    if {"boundaries", "group_sizes"} & set(section.get("bucketing", {})):
        said = "handler.bucketing of the command line"
    elif material.calibration is None:
        said = "default; give --calibration FILE to choose by the texts' lengths"
    else:
        lengths = [item.length for item in material.calibration.spread(MAX_TEXTS)]
        found = np.quantile(lengths, QUANTILES, method="higher")
        boundaries = tuple(sorted({min(-(-int(length) // STEP) * STEP, max_length) for length in found}))
        said = f"{len(lengths)} calibration texts"
    fitting = [boundary for boundary in boundaries if boundary <= max_length]
    if not fitting:
        return {}, said
    bucketing = {
        "boundaries": fitting,
        "group_sizes": list(GROUP_SIZES),
        "max_batch_size": GROUP_SIZES[-1],
        "call_overhead_tokens": CALL_OVERHEAD_TOKENS,
    }
    return {"bucketing": bucketing}, said
