"""Figures as SVG: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.process import BenchError
from bench.runner import Block, median, rate

Point = tuple[float, float, str, str]
"""x, y, text and colour."""

_LABEL_HEIGHT = 0.035
"""Of a label, as part of the axis."""

_KINDS = {"process": "#999999", "stock": "#d95f02", "ours": "#1f77b4"}


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield a figure, and write it when the block is done."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ts_handlers", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    made = plt.figure(figsize=(width, height), layout="constrained")
    yield made
    made.savefig(path, format="svg", metadata={"Date": None})
    plt.close(made)


def bars(sides: Mapping[str, Sequence[Block]], path: Path) -> None:
    """Draw the rate of each side, the CPU seconds of a request and its peak memory."""
    panels = (
        ("images a second", [rate(mine) for mine in sides.values()], "{:.1f}"),
        ("CPU seconds an image", [_cpu_s(mine) for mine in sides.values()], "{:.2f}"),
        ("peak memory, MiB", [max(block.peak_mib for block in mine) for mine in sides.values()], "{:.0f}"),
    )
    with figure(path, 11, 0.9 + 0.3 * len(sides)) as made:
        all_axes = made.subplots(1, len(panels), sharey=True)
        for axes, (title, values, form) in zip(all_axes, panels, strict=True):
            drawn = axes.barh(
                range(len(sides)), values, color=[_KINDS[name.partition("-")[0]] for name in sides], zorder=3
            )
            axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize=8)
            axes.set_yticks(range(len(sides)), list(sides))
            axes.set_xlabel(title)
            axes.margins(x=0.18)
            axes.grid(axis="x", alpha=0.3)
        all_axes[0].invert_yaxis()


def label(
    axes: Any,
    points: Sequence[Point],
    scale: Callable[[float], float],
    back: Callable[[float], float],
) -> None:
    """Write a text beside each point; among points of about one x they are moved apart.

    Args:
        axes: The axes, with their limits.
        points: The points.
        scale: From y to what is even on the axis: its logarithm, or itself.
        back: The way back.
    """
    low, high = (scale(limit) for limit in axes.get_ylim())
    columns: dict[int, list[Point]] = {}
    for point in points:
        columns.setdefault(round(axes.transData.transform((point[0], point[1]))[0] / 120), []).append(point)
    for column in columns.values():
        heights = spread_labels([scale(point[1]) for point in column], _LABEL_HEIGHT * (high - low))
        for (x, _, text, colour), height in zip(column, heights, strict=True):
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
            axes.annotate(text, (x, back(height)), color=colour, **place)


def spread_labels(heights: Sequence[float], least: float) -> list[float]:
    """Return heights for labels that would lie on one another: in the same order, and `least` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + least)
    return placed


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Put text between two lines of a page of docs/; what people write around them stays.

    Raises:
        BenchError: The page has not one of each.
    """
    page = path.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise BenchError(f"{path} needs one line {begin} and, after it, one line {end}; put them back")
    before, rest = page.split(begin)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def _cpu_s(blocks: Sequence[Block]) -> float:
    return median([block.cpu.all_s / max(1, block.num_answered) for block in blocks]) or 0.0
