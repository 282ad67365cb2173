"""The day and what each autoscaler made of it, drawn: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.simulation.outcome import Outcome
from bench.simulation.scenarios import HPA, KEDA, KPA, WORKERS
from bench.simulation.service import Service

_COLOURS = {KPA: "#7b3294", HPA: "#1f77b4", KEDA: "#d95f02", WORKERS: "#1b9e77"}
_OTHER = "#666666"
_MEAN_MINUTES = 5
_LEAST_SHARE = 5e-4
"""Where fewer requests missed, the point is drawn here: the axis is logarithmic."""


def draw(shipped: Sequence[Outcome], others: Sequence[Outcome], service: Service, path: Path) -> None:
    """Write an SVG: CPUs over the day of each autoscaler as shipped, and below misses over CPU-hours of every setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ts_handlers", "svg.fonttype": "none", "font.size": 9, "path.simplify": True})
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(9, 2.0 * len(shipped) + 4.2), layout="constrained")
    grid = figure.add_gridspec(len(shipped) + 1, 1, height_ratios=[1.0] * len(shipped) + [2.1])
    first: Any = None
    for row, outcome in enumerate(shipped):
        axes = figure.add_subplot(grid[row], sharex=first, sharey=first)
        first = first or axes
        _draw_day(axes, outcome, service)
        axes.tick_params(labelbottom=row == len(shipped) - 1)
    first.legend(loc="upper left", ncols=3)
    _draw_trade(figure.add_subplot(grid[len(shipped)]), [*shipped, *others])
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _draw_day(axes: Any, outcome: Outcome, service: Service) -> None:
    """Draw CPUs reserved over those that the requests need, and where more than 1 % of them missed the SLO."""
    colour = _COLOURS.get(outcome.family, _OTHER)
    needed = _means(outcome.minutes["rate"]) * service.request_seconds
    reserved = _means(outcome.minutes["cpus"])
    missed = _means(outcome.minutes["missed"])
    hours = np.arange(len(needed)) * _MEAN_MINUTES / 60
    axes.fill_between(hours, needed, step="post", color="#cccccc", linewidth=0, label="CPUs the requests need")
    axes.step(hours, reserved, where="post", color=colour, linewidth=1, label="CPUs reserved")
    bad = hours[missed > 0.01]
    axes.plot(
        bad, np.full(len(bad), -1.0), linestyle="", marker="|", color="#cc0000", label="over 1 % of requests miss"
    )
    axes.set_title(f"{outcome.family}, {outcome.setting}", fontsize=9, loc="left", color=colour)
    axes.set_ylabel("CPUs")
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 3), [f"{hour}:00" for hour in range(0, 25, 3)])
    axes.grid(alpha=0.3)


def _draw_trade(axes: Any, outcomes: Sequence[Outcome]) -> None:
    for family in dict.fromkeys(outcome.family for outcome in outcomes):
        chosen = sorted((one for one in outcomes if one.family == family), key=lambda one: one.cpu_hours)
        colour = _COLOURS.get(family, _OTHER)
        shares = [100 * max(one.miss_share, _LEAST_SHARE) for one in chosen]
        axes.plot([one.cpu_hours for one in chosen], shares, "o", color=colour, label=family)
        for one, share in zip(chosen, shares, strict=True):
            place = {"xytext": (5, 2), "textcoords": "offset points", "fontsize": 7, "color": colour}
            axes.annotate(one.setting, (one.cpu_hours, share), **place)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    axes.set_xlabel("CPU-hours reserved in the day")
    axes.set_ylabel("% of requests that miss the SLO")
    axes.grid(alpha=0.3)
    axes.margins(x=0.12, y=0.1)
    axes.legend(loc="upper right", fontsize=8)


def _means(minutes: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = len(minutes) // _MEAN_MINUTES * _MEAN_MINUTES
    means: NDArray[np.float64] = minutes[:whole].reshape(-1, _MEAN_MINUTES).mean(axis=1)
    return means
