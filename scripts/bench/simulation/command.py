"""Compare autoscalers on one simulated day of bursty traffic: KPA, HPA on CPU, KEDA, and KEDA with the worker autoscaler."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.plot import figure, label, write_between
from bench.process import BenchError
from bench.report import table
from bench.runner import Run
from bench.simulation.cluster import MEASURED, Platform, Service, read_measured
from bench.simulation.day import Outcome, simulate
from bench.simulation.measure import measure
from bench.simulation.scenarios import HPA, KEDA, KPA, WORKERS, Scenarios
from bench.simulation.traffic import HOUR_SECONDS, SEED, day

DAY_HOURS = 24
PAGE = Path(__file__).parents[3] / "docs" / "kubernetes.md"
PLOT = PAGE.with_name("autoscaling-simulation.svg")
BEGIN = "<!-- scripts/bench/autoscaling writes from here -->"
END = "<!-- scripts/bench/autoscaling writes to here -->"

_COLOURS = {KPA: "#7b3294", HPA: "#1f77b4", KEDA: "#d95f02", WORKERS: "#1b9e77"}
_MEAN_MINUTES = 5
_LEAST_SHARE = 5e-4
"""Where fewer requests missed, the point is drawn here: the axis is logarithmic."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    platform = Platform()
    parser.add_argument("--sweep", action="store_true", help="other settings, too, not only those that are shipped")
    parser.add_argument(
        "--hours", type=int, default=DAY_HOURS, help="of the day, from midnight on (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the traffic (default: %(default)s)")
    parser.add_argument("--slo-ms", type=float, default=1000.0, help="latency of the SLO (default: %(default)s)")
    parser.add_argument("--schedule-seconds", type=float, default=platform.schedule_seconds,
                        help="until a new pod's container starts; more where images are pulled or nodes added "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--resize-seconds", type=float, default=platform.resize_seconds,
                        help="until an in-place resize is done (default: %(default)s)")  # fmt: skip
    parser.add_argument("--write-docs", action="store_true", help="write docs/kubernetes.md's section and its plot")
    parser.add_argument("--measure", action="store_true",
                        help="only measure, on this machine, the server that the simulation is made of")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=24.0, help="of --measure's loads (default: %(default)s)")


def run(run: Run) -> int:
    """Run the comparison, or measure what it is made of."""
    args = run.args
    if args.measure:
        MEASURED.write_text(json.dumps(measure(run, args.seconds), indent=2) + "\n", encoding="utf-8")
        print(f"written: {MEASURED}")
        return 0
    if not 1 <= args.hours <= DAY_HOURS or (args.write_docs and args.hours < DAY_HOURS):
        raise BenchError(f"--hours is {args.hours}; give 1 to {DAY_HOURS}, and a whole day with --write-docs")
    platform = replace(Platform(), schedule_seconds=args.schedule_seconds, resize_seconds=args.resize_seconds)
    service, measured = read_measured()
    seconds = args.hours * HOUR_SECONDS
    arrivals = day(seconds, args.seed)
    scenarios = Scenarios(service, platform)
    shipped = [simulate(scenario, arrivals, seconds, args.slo_ms / 1e3) for scenario in scenarios.shipped()]
    print(outcome_table(shipped), flush=True)
    others = [simulate(each, arrivals, seconds, args.slo_ms / 1e3) for each in scenarios.others() if args.sweep]
    if others:
        print(f"\n{outcome_table(others)}")
    if args.write_docs:
        write_between(PAGE, BEGIN, END, section(shipped, others, args, measured))
        draw(shipped, others, service, PLOT)
        print(f"written: {PAGE}")
    run.write_json(measured=measured, outcomes=[outcome.to_json() for outcome in (*shipped, *others)])
    return 0


def section(
    shipped: Sequence[Outcome], others: Sequence[Outcome], args: argparse.Namespace, measured: Mapping[str, Any]
) -> str:
    """Return what is between the page's markers."""
    command = f"scripts/bench/autoscaling{' --sweep' if args.sweep else ''} --write-docs"
    machine, service = measured["machine"], measured["service"]
    batch = ", ".join(f"{size}: {ms:g}" for size, ms in measured["batch_ms"].items())
    rates = ", ".join(f"{rate:g}" for rate in measured["served_requests_per_second"])
    parts = [
        f"Made by `{command}`: a discrete-event simulation of one day of {shipped[0].num_requests:,} requests (seed "
        f"{args.seed}); no cluster was there. A request misses the SLO when its answer takes more than {args.slo_ms:g} "
        "ms, or is a 503. CPU-hours are what pods reserve, from the moment a pod is asked for until it is gone. All have "
        "the same requests.",
        "With the settings that `configs/kubernetes` ships:",
        outcome_table(shipped),
        *(("With other settings:", outcome_table(others)) if others else ()),
        f"![CPUs over the day of each autoscaler, and misses over CPU-hours of every setting]({PLOT.name})",
        f"**The server, measured** (`--measure`; {machine['cpus_usable']} CPUs, {machine['cpu']}): {measured['model']}. "
        f"Batches in one process of one thread, by size, ms: {batch}. Through TorchServe with two workers, 16 clients: "
        f"{rates} requests/s in three rounds, {measured['served_share_of_limit']:.0%} of twice that process: what serving "
        "costs, and what two busy CPUs of that machine cost one another. So a batch of n takes "
        f"{service['call_seconds'] * 1e3:.1f} + {service['request_seconds'] * 1e3:.1f} n ms, with a log-normal spread of "
        f"{service['noise']:.0%}; batches are of up to {service['batch_size']}, and {service['job_queue_size']} requests "
        f"may wait in a pod. One worker more serves after {service['worker_load_seconds']:g} s; a server with two, "
        f"{service['server_start_seconds']:g} s after its process began.",
    ]
    return "\n\n".join(parts)


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table, a row each."""
    head = ["autoscaler", "setting", "SLO missed %", "503 %", "p50 ms", "p99 ms", "CPU-hours", "most CPUs"]
    return table([[*head, "replicas changed"], *(_row(outcome) for outcome in outcomes)])


def _row(outcome: Outcome) -> list[str]:
    return [
        outcome.family,
        outcome.setting,
        f"{100 * outcome.miss_share:.2f}",
        f"{100 * outcome.num_rejected / max(1, outcome.num_requests):.2f}",
        *(f"{number:.0f}" for number in (outcome.p50_ms, outcome.p99_ms, outcome.cpu_hours, outcome.most_cpus)),
        str(outcome.num_changes),
    ]


def draw(shipped: Sequence[Outcome], others: Sequence[Outcome], service: Service, path: Path) -> None:
    """Write an SVG: CPUs over the day of each autoscaler as shipped, and below misses over CPU-hours of every setting."""
    with figure(path, 9, 2.0 * len(shipped) + 4.2) as drawn:
        grid = drawn.add_gridspec(len(shipped) + 1, 1, height_ratios=[1.0] * len(shipped) + [2.1])
        days: list[Any] = []
        for row, outcome in enumerate(shipped):
            shared = days[0] if days else None
            days.append(drawn.add_subplot(grid[row], sharex=shared, sharey=shared))
            _draw_day(days[-1], outcome, service)
            days[-1].tick_params(labelbottom=row == len(shipped) - 1)
        days[-1].legend(loc="upper left")
        _draw_trade(drawn.add_subplot(grid[len(shipped)]), [*shipped, *others])


def _draw_day(axes: Any, outcome: Outcome, service: Service) -> None:
    """Draw CPUs reserved over those that the requests need, and where more than 1 % of them missed the SLO."""
    needed = _means(outcome.minutes["rate"]) * service.request_seconds
    hours = np.arange(len(needed)) * _MEAN_MINUTES / 60
    bad = hours[_means(outcome.minutes["missed"]) > 0.01]
    colour = _COLOURS[outcome.family]
    axes.fill_between(hours, needed, step="post", color="#cccccc", linewidth=0, label="CPUs the requests need")
    axes.step(hours, _means(outcome.minutes["cpus"]), where="post", color=colour, linewidth=1, label="CPUs reserved")
    axes.plot(bad, np.full(len(bad), -1.0), "|", color="#cc0000", label="over 1 % of requests miss")
    axes.set_title(f"{outcome.family}, {outcome.setting}", fontsize=9, loc="left", color=colour)
    axes.set_ylabel("CPUs")
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 3), [f"{hour}:00" for hour in range(0, 25, 3)])
    axes.grid(alpha=0.3)


def _draw_trade(axes: Any, outcomes: Sequence[Outcome]) -> None:
    points = [
        (one.cpu_hours, 100 * max(one.miss_share, _LEAST_SHARE), one.setting, _COLOURS[one.family]) for one in outcomes
    ]
    for family, colour in _COLOURS.items():
        chosen = [point for point in points if point[3] == colour]
        axes.plot([point[0] for point in chosen], [point[1] for point in chosen], "o", color=colour, label=family)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    axes.set_xlabel("CPU-hours reserved in the day")
    axes.set_ylabel("% of requests that miss the SLO")
    axes.grid(alpha=0.3)
    axes.margins(x=0.12, y=0.1)
    label(axes, points, math.log10, lambda height: 10.0**height)
    axes.legend(loc="lower left", fontsize=8)


def _means(minutes: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = len(minutes) // _MEAN_MINUTES * _MEAN_MINUTES
    means: NDArray[np.float64] = minutes[:whole].reshape(-1, _MEAN_MINUTES).mean(axis=1)
    return means
