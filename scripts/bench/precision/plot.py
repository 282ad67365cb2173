"""The frontier of speed over cosine, drawn: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.precision.measured import Measured, frontier
from ts_handlers.build.gate import Limits
from ts_handlers.build.trial import Trial

LEAST_LOSS = 1e-7
"""Where 1 - cosine is smaller, it is drawn here: an engine in fp32 differs by rounding only."""

_COLOURS = {"onnx": "#1f77b4", "openvino": "#d95f02", "torch": "#7b3294", "ipex": "#1b9e77"}
_LABEL_HEIGHT = 0.035
"""Of a label, as part of the axis."""


def draw_frontier(model: Measured, path: Path) -> None:
    """Write an SVG: a point an engine, to the right what is nearer to the source, upwards what is faster."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ts_handlers", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    points = [trial for trial in model.made if trial.quality is not None and model.speed(trial) is not None]
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for backend in dict.fromkeys(trial.method.backend for trial in points):
        chosen = [trial for trial in points if trial.method.backend == backend]
        axes.scatter(
            [loss(trial) for trial in chosen],
            [model.speed(trial) for trial in chosen],
            color=_COLOURS.get(backend, "#666666"),
            label=backend,
            zorder=3,
        )
    best = frontier(points)
    axes.plot([loss(trial) for trial in best], [model.speed(trial) for trial in best], color="#999999", zorder=1)
    limit = Limits().min_mean_cosine
    axes.axvline(1 - limit, color="#bbbbbb", linestyle="--", linewidth=1, label=f"the gate's mean cosine, {limit:g}")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("1 - mean cosine with the source")
    axes.set_ylabel("samples a second, times ONNX Runtime fp32")
    axes.grid(alpha=0.3)
    axes.margins(x=0.12, y=0.1)
    _label(axes, model, points)
    axes.legend(loc="lower left")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def loss(trial: Trial) -> float:
    """Return 1 - mean cosine, LEAST_LOSS at least."""
    return max(LEAST_LOSS, 1.0 - trial.quality.mean_cosine) if trial.quality is not None else 1.0


def spread_labels(heights: Sequence[float], least: float) -> list[float]:
    """Return heights for labels that would lie on one another: in the same order, and `least` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + least)
    return placed


def _label(axes: Any, model: Measured, points: Sequence[Trial]) -> None:
    """Write each engine's name beside its point; among points of about one cosine the names are moved apart."""
    top = axes.get_ylim()[1]
    columns: dict[int, list[Trial]] = {}
    for trial in points:
        columns.setdefault(round(axes.transData.transform((loss(trial), 0))[0] / 130), []).append(trial)
    for column in columns.values():
        heights = [model.speed(trial) or 0.0 for trial in column]
        for trial, height in zip(column, spread_labels(heights, _LABEL_HEIGHT * top), strict=True):
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 7.5}
            axes.annotate(trial.method.name, (loss(trial), height), **place)
