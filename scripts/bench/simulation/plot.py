"""The day and what each autoscaler made of it, drawn: the same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.precision.plot import spread_labels
from bench.simulation.outcome import Outcome
from bench.simulation.scenarios import HPA, KEDA, KPA, WORKERS
from bench.simulation.service import Service

_COLOURS = {KPA: "#7b3294", HPA: "#1f77b4", KEDA: "#d95f02", WORKERS: "#1b9e77"}
_OTHER = "#666666"
_MEAN_MINUTES = 5
_LABEL_HEIGHT = 0.035
"""Of a label, as part of the axis."""

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
    days: list[Any] = []
    for row, outcome in enumerate(shipped):
        shared = days[0] if days else None
        days.append(figure.add_subplot(grid[row], sharex=shared, sharey=shared))
        _draw_day(days[-1], outcome, service)
        days[-1].tick_params(labelbottom=row == len(shipped) - 1)
    days[-1].legend(loc="upper left")
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
        chosen = [outcome for outcome in outcomes if outcome.family == family]
        colour = _COLOURS.get(family, _OTHER)
        axes.plot([one.cpu_hours for one in chosen], [_percent(one) for one in chosen], "o", color=colour, label=family)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    axes.set_xlabel("CPU-hours reserved in the day")
    axes.set_ylabel("% of requests that miss the SLO")
    axes.grid(alpha=0.3)
    axes.margins(x=0.12, y=0.1)
    _label(axes, outcomes)
    axes.legend(loc="lower left", fontsize=8)


def _label(axes: Any, outcomes: Sequence[Outcome]) -> None:
    """Write each setting beside its point; among points of about as many CPU-hours they are moved apart."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    columns: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        columns.setdefault(round(axes.transData.transform((outcome.cpu_hours, 1.0))[0] / 110), []).append(outcome)
    for column in columns.values():
        heights = spread_labels([math.log10(_percent(one)) for one in column], _LABEL_HEIGHT * (high - low))
        for one, height in zip(column, heights, strict=True):
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
            colour = _COLOURS.get(one.family, _OTHER)
            axes.annotate(one.setting, (one.cpu_hours, 10**height), color=colour, **place)


def _percent(outcome: Outcome) -> float:
    return 100 * max(outcome.miss_share, _LEAST_SHARE)


def _means(minutes: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = len(minutes) // _MEAN_MINUTES * _MEAN_MINUTES
    means: NDArray[np.float64] = minutes[:whole].reshape(-1, _MEAN_MINUTES).mean(axis=1)
    return means
