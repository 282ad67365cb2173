"""What the commands of the benchmarks have in common: options, exit codes, and the JSON they write."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.process import exit_on_signals
from ts_handlers.errors import OperatorError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

WORK_DIR = Path(tempfile.gettempdir()) / "ts-handlers-bench"


def add_load_options(parser: argparse.ArgumentParser, *, warmup_seconds: float, rounds: int, clients: int = 16) -> None:
    """Declare how much load there is, with the defaults that differ."""
    parser.add_argument("--clients", type=int, default=clients, help="closed-loop clients (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured part of a block (default: %(default)s)")
    parser.add_argument(
        "--warmup-seconds", type=float, default=warmup_seconds, help="load before it (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="blocks of each kind (default: %(default)s)")


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Declare where files go."""
    parser.add_argument("--work-dir", type=Path, metavar="DIR", default=WORK_DIR,
                        help="environments, models and logs; kept for the next run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")


def make_work_dir(args: argparse.Namespace) -> Path:
    """Make the folder of --work-dir, if need be, and return its absolute path."""
    work_dir: Path = args.work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    return work_dir


def run_benchmark(name: str, run: Callable[[], int]) -> int:
    """Run it and return its exit code; 2 for what the caller must put right, 130 where it was interrupted."""
    exit_on_signals()
    try:
        return run()
    except OperatorError as error:
        print(f"bench {name}: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"\nbench {name}: interrupted; everything it started is stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def write_json(args: argparse.Namespace, content: Mapping[str, Any]) -> None:
    """Write the options and what was found to the file of --json, if one was given."""
    if args.json is None:
        return
    options = {name: str(value) for name, value in vars(args).items()}
    args.json.write_text(json.dumps({"options": options, **content}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {args.json}")
