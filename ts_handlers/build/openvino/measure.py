"""What calls of an OpenVINO model cost, measured on this machine, and the shapes chosen by it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ts_handlers.build.engine import Material
from ts_handlers.build.openvino.memory import mib_per_graph
from ts_handlers.build.samples import MAX_LENGTH
from ts_handlers.build.shapes import GROUP_SIZES, STEP, CallCosts, ShapeLimits, Shapes, choose_shapes
from ts_handlers.build.sources.texts import Source
from ts_handlers.config import BucketingConfig, RuntimeConfig
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles
from ts_handlers.runtime.openvino import OpenVinoSession
from ts_handlers.settings import from_mapping

DEFAULT = Shapes((16, 32, 64, 128), (1, 4), 0.0)
"""Without calibration texts nobody knows the lengths; a text as long as a tweet is padded by a third."""

MAX_TEXTS = 2000
"""Calibration texts whose lengths count."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Lengths that are measured, as quantiles of the texts' lengths."""

REPEATS = 9
_ROWS = sorted({rows for sizes in GROUP_SIZES for rows in sizes})


def shape_sections(
    path: Path, runtime: Mapping[str, Any], material: Material
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Choose shapes for an engine's files; return `handler.bucketing` for them, and what is said in the build report.

    What is measured is never twice the same, so that two builds may choose differently: who wants the same bytes sets
    `bucketing.boundaries` and `bucketing.group_sizes`.
    """
    if not material.source.can_pad:
        return {}, {"chosen_by": "the model: padding changes its answers, so that texts have no shapes in common"}
    max_length = _max_length(material)
    fitting = replace(DEFAULT, boundaries=tuple(b for b in DEFAULT.boundaries if b <= max_length))
    bucketing = material.section.get("bucketing", {})
    if {"boundaries", "group_sizes"} & set(bucketing):
        return _sections(fitting, 8.0), {"chosen_by": "handler.bucketing of the command line"}
    if material.calibration is None:
        return _sections(fitting, 8.0), {
            "chosen_by": "default; give --calibration FILE to choose by the texts' lengths"
        }
    config = from_mapping(RuntimeConfig, {**runtime, **material.section.get("runtime", {})}, "handler.runtime")
    lengths = [min(item.length, max_length) for item in material.calibration.spread(MAX_TEXTS)]
    costs = _Measuring(path, config, material.source).costs(measured_lengths(lengths, max_length))
    usual = costs.lengths[len(costs.lengths) // 2]
    mib = mib_per_graph(path, runtime, [material.source.call_arrays(rows, usual) for rows in _ROWS])
    most_graphs = max(1, int((config.max_memory_mb or 2**20) // mib))
    shapes = choose_shapes(lengths, costs, most_graphs, _limits(bucketing, max_length))
    report = {
        "chosen_by": f"{len(lengths)} calibration texts",
        "mib_per_graph": round(mib, 1),
        "max_graphs": most_graphs,
        "ms_per_text": round(shapes.ms_per_text, 3),
        "ms_by_rows": {str(rows): [round(ms, 3) for ms in found] for rows, found in costs.fixed.items()},
        "ms_any_shape": [round(ms, 3) for ms in costs.open],
        "lengths": list(costs.lengths),
    }
    return _sections(shapes, costs.overhead_tokens()), report


def measured_lengths(lengths: Sequence[int], max_length: int) -> tuple[int, ...]:
    """Return the lengths to measure: quantiles, rounded up to possible boundaries."""
    chosen = np.quantile(lengths, QUANTILES, method="higher")
    return tuple(sorted({min(-(-int(length) // STEP) * STEP, max_length) for length in chosen}))


def _max_length(material: Material) -> int:
    """Return the longest sequence that the worker makes: of a question and its context, a window."""
    if material.source.task != "question-answering":
        return material.max_length
    return min(material.max_length, int(material.section.get("output", {}).get("max_seq_len") or MAX_LENGTH))


def _limits(bucketing: Mapping[str, Any], max_length: int) -> ShapeLimits:
    config = from_mapping(BucketingConfig, bucketing, "handler.bucketing")
    return ShapeLimits(max_length, config.max_padded_tokens)


class _Measuring:
    """Opens the model as a worker with one thread would, for some shapes at a time."""

    def __init__(self, path: Path, config: RuntimeConfig, source: Source) -> None:
        self._config = replace(config, max_memory_mb=None)
        self._files = ModelFiles(path.parent, path.name)
        self._source = source

    def costs(self, lengths: Sequence[int]) -> CallCosts:
        """Time calls of every number of rows at each length, and of one row in the graph for any shape."""
        fixed: dict[int, list[float]] = {rows: [] for rows in _ROWS}
        for length in lengths:
            session = self._open([(rows, length) for rows in _ROWS])
            for rows, found in fixed.items():
                found.append(self._ms(session, [(rows, length)])[0])
        open_costs = self._ms(self._open([]), [(1, length) for length in lengths])
        return CallCosts(tuple(lengths), {rows: _rising(found) for rows, found in fixed.items()}, _rising(open_costs))

    def _open(self, shapes: Sequence[tuple[int, int]]) -> OpenVinoSession:
        return OpenVinoSession(self._config, self._files, cpu_share(CpuBudget((0,)), 1, threads=1), shapes)

    def _ms(self, session: OpenVinoSession, shapes: Sequence[tuple[int, int]]) -> list[float]:
        """Return the least time of a call of each shape, all of them in turns: shapes change from call to call.

        The least, because whatever else the machine does only adds to it.
        """
        times: list[list[float]] = [[] for _ in shapes]
        for number in range(REPEATS + 1):
            for found, shape in zip(times, shapes, strict=True):
                arrays = self._source.call_arrays(*shape)
                started = time.perf_counter()
                session.run(arrays)
                if number:
                    found.append((time.perf_counter() - started) * 1000)
        return [min(found) for found in times]


def _rising(costs: Sequence[float]) -> tuple[float, ...]:
    """Let no longer call cost less than a shorter one: that can only be noise."""
    return tuple(float(cost) for cost in np.maximum.accumulate(costs))


def _sections(shapes: Shapes, call_overhead_tokens: float) -> dict[str, dict[str, Any]]:
    if not shapes.boundaries:
        return {}
    bucketing = {
        "boundaries": list(shapes.boundaries),
        "group_sizes": list(shapes.group_sizes),
        "max_batch_size": shapes.group_sizes[-1],
        "call_overhead_tokens": call_overhead_tokens,
    }
    return {"bucketing": bucketing}
