"""Run one of the benchmarks by its name."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.process import end_on_signals
from bench.runner import Run
from ts_handlers.errors import OperatorError

NAMES = {
    "text": "bench.experiments.text",
    "workers": "bench.experiments.workers",
    "overhead": "bench.experiments.overhead",
    "centralized": "bench.experiments.centralized",
    "idle": "bench.experiments.idle",
    "autoscale": "bench.experiments.autoscale",
    "precision": "bench.experiments.precision",
    "autoscaling": "bench.simulation.command",
}
"""Name -> module with `declare(parser)` and `run(run)`."""

WORK_DIR = Path(tempfile.gettempdir()) / "ts-handlers-bench"


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and return its exit code: 1 for a missed aim or errors, 2 for what the caller must put right."""
    end_on_signals()
    parser = argparse.ArgumentParser(prog="scripts/bench/run")
    parsers = parser.add_subparsers(dest="name", required=True)
    for name, path in NAMES.items():
        module = importlib.import_module(path)
        each = parsers.add_parser(name, description=module.__doc__, help=str(module.__doc__).partition("\n")[0])
        module.declare(each)
        each.add_argument("--work-dir", type=Path, metavar="DIR", default=WORK_DIR,
                          help="environments, models and logs; kept for the next run (default: %(default)s)")  # fmt: skip
        each.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
        each.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(Run(args)))
    except OperatorError as error:
        print(f"bench {args.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nbench {args.name}: interrupted; everything it started is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
