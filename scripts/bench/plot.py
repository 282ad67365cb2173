"""Figures as SVG: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.process import BenchError

Point = tuple[float, float, str, str]
"""x, y, text and colour."""

_LABEL_HEIGHT = 0.035
"""Of a label, as part of the axis."""


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
