"""The experiment with images, drawn: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.image_run import Row
from bench.image_sides import OURS, PROCESS, STOCK

_COLOURS = {PROCESS: "#999999", STOCK: "#d95f02", OURS: "#1f77b4"}


def draw_images(found: Sequence[Row], path: Path) -> None:
    """Write an SVG: images a second, CPU seconds of an image and peak memory, a bar for each setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ts_handlers", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    panels = (
        ("images a second", [row.images_per_second for row in found], "{:.1f}"),
        ("CPU seconds an image", [row.cpu_s_per_image for row in found], "{:.2f}"),
        ("peak memory, MiB", [row.peak_mib for row in found], "{:.0f}"),
    )
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(11, 0.9 + 0.3 * len(found)), sharey=True, layout="constrained"
    )
    for axes, (title, values, form) in zip(all_axes, panels, strict=True):
        bars = axes.barh(range(len(found)), values, color=[_COLOURS[row.group] for row in found], zorder=3)
        axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
        axes.set_yticks(range(len(found)), [row.setting for row in found])
        axes.set_xlabel(title)
        axes.margins(x=0.18)
        axes.grid(axis="x", alpha=0.3)
    all_axes[0].invert_yaxis()
    groups = [group for group in _COLOURS if any(row.group == group for row in found)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[group]) for group in groups]
    figure.legend(handles, groups, loc="outside upper center", ncols=len(groups), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
