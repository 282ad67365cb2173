"""Compare autoscalers on one simulated day of bursty traffic: KPA, HPA on CPU, KEDA, and KEDA with the worker autoscaler."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.page import write_between
from bench.shared import add_place_options, make_work_dir, run_benchmark, write_json
from bench.simulation.measure import measure
from bench.simulation.outcome import Outcome
from bench.simulation.page import BEGIN, EMPTY_PAGE, END, Given, outcome_table, section
from bench.simulation.plot import draw
from bench.simulation.run import simulate
from bench.simulation.scenarios import Scenarios
from bench.simulation.service import MEASURED, Platform, read_measured
from bench.simulation.traffic import HOUR_SECONDS, Traffic

DEFAULT_SLO_MS = 1000.0
DAY_HOURS = 24

_PAGE = Path(__file__).parents[3] / "docs" / "kubernetes.md"
_PLOT_NAME = "autoscaling-simulation.svg"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; 2 for what the caller must put right."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not 1 <= args.hours <= DAY_HOURS:
        parser.error(f"--hours is {args.hours}; give 1 to {DAY_HOURS}")
    if args.write_docs and args.hours < DAY_HOURS:
        parser.error(f"the docs are of a whole day, and --hours is {args.hours}; leave it out with --write-docs")
    return run_benchmark("autoscaling", lambda: _measure(args) if args.measure else _compare(args))


def _parser() -> argparse.ArgumentParser:
    platform = Platform()
    parser = argparse.ArgumentParser(prog="scripts/bench/autoscaling", description=__doc__)
    parser.add_argument("--sweep", action="store_true", help="other settings, too, not only those that are shipped")
    parser.add_argument(
        "--hours", type=int, default=DAY_HOURS, help="of the day, from midnight on (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Traffic().seed, help="of the traffic (default: %(default)s)")
    parser.add_argument(
        "--slo-ms", type=float, default=DEFAULT_SLO_MS, help="latency of the SLO (default: %(default)s)"
    )
    parser.add_argument("--schedule-seconds", type=float, default=platform.schedule_seconds,
                        help="until a new pod's container starts; more where images are pulled or nodes added "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--resize-seconds", type=float, default=platform.resize_seconds,
                        help="until an in-place resize is done (default: %(default)s)")  # fmt: skip
    parser.add_argument("--write-docs", action="store_true", help="write docs/kubernetes.md's section and its plot")
    parser.add_argument("--measure", action="store_true",
                        help="only measure, on this machine, the server that the simulation is made of")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=24.0, help="of --measure's loads (default: %(default)s)")
    add_place_options(parser)
    return parser


def _measure(args: argparse.Namespace) -> int:
    found = measure(make_work_dir(args), args.seconds)
    MEASURED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"written: {MEASURED}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    traffic = Traffic(seed=args.seed)
    platform = replace(Platform(), schedule_seconds=args.schedule_seconds, resize_seconds=args.resize_seconds)
    service, measured = read_measured()
    seconds = args.hours * HOUR_SECONDS
    arrivals = traffic.arrivals(seconds)
    scenarios = Scenarios(service, platform)
    shipped, others = scenarios.shipped(), scenarios.others() if args.sweep else []
    outcomes: list[Outcome] = []
    for scenario in [*shipped, *others]:
        started = time.monotonic()
        outcomes.append(simulate(scenario, arrivals, seconds, args.slo_ms / 1e3))
        print(f"{scenario.name}: {time.monotonic() - started:.0f} s", flush=True)
    print(f"\n{outcome_table(outcomes)}")
    mine, rest = outcomes[: len(shipped)], outcomes[len(shipped) :]
    if args.write_docs:
        given = Given(args.slo_ms / 1e3, traffic, measured, service, platform)
        command = f"scripts/bench/autoscaling{' --sweep' if args.sweep else ''} --write-docs"
        text = section(mine, rest, given, plot=_PLOT_NAME, command=command)
        draw(mine, rest, service, _PAGE.with_name(_PLOT_NAME))
        write_between(_PAGE, BEGIN, END, text, empty_page=EMPTY_PAGE)
        print(f"written: {_PAGE}")
    write_json(args, {"measured": measured, "outcomes": [outcome.to_json() for outcome in outcomes]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
