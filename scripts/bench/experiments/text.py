"""Sentiment of real sentences: TorchServe's stock handler, FastAPI, and ours through TorchServe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.models.sentences import make_sentiment
from bench.models.subjects import Subject, make_texts
from bench.others import ALL_SETTINGS, FastApi, Stock, parse_settings, stock_python
from bench.ours import Ours
from bench.process import BenchError
from bench.report import Ratio, by_side, rate
from bench.runner import Load, Run, add_options
from bench.side import Side

SIDES = ("stock", "fastapi", "ours")
AIMS = {"stock": 14.0, "fastapi": 1.2}
"""What ours should be over each of the others."""

AUTO = "auto"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--pytorch-serve", type=Path, metavar="DIR", help="a checkout of pytorch/serve")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--stock", metavar="SETTING", action="append",
                        help=f"one of {', '.join(map(str, ALL_SETTINGS))} (workers, batch, OMP threads; t0: unset); "
                        "may be given again; of several (default: all) the best is searched first")  # fmt: skip
    parser.add_argument("--search-seconds", type=float, default=10.0, help="block of each in that search (%(default)g)")
    parser.add_argument("--precision", default=AUTO,
                        help="of our build; auto: the fastest that passes the gate (default: %(default)s)")  # fmt: skip
    parser.add_argument("--build-options", default="", metavar="'--X Y'", help="more options for `ts-handlers build`")
    parser.add_argument("--payloads", type=Path, metavar="FILE", help="one sentence a line (default: rated sentences)")
    add_options(parser, rounds=3)


def run(run: Run) -> int:
    """Run the benchmark."""
    args = run.args
    texts = make_texts(run.work_dir)
    load = run.load(args.payloads.resolve() if args.payloads else texts.payloads, texts.probes)
    sides: list[Side] = [_stock(run, texts, load)] if "stock" in args.sides else []
    if "fastapi" in args.sides:
        sides.append(FastApi(texts.archive("--precision", "int8"), run.work_dir))
    if "ours" in args.sides:
        sides.append(Ours("ours", texts.archive(*_build_options(args, run.work_dir)), batch_size=None))
    ratios = [Ratio("ours", side.name, AIMS[side.name.split()[0]]) for side in sides if side.name != "ours"]
    return run.report(run.measure(sides, load), ratios if "ours" in args.sides else [])


def _build_options(args: argparse.Namespace, work_dir: Path) -> list[str | Path]:
    options: list[str | Path] = ["--precision", args.precision, *args.build_options.split()]
    if args.precision == AUTO:
        options += [] if "--backend" in options else ["--backend", AUTO]
        data = make_sentiment(work_dir)
        options += ["--calibration", data.calibration, "--evaluation", data.evaluation]
    return options


def _stock(run: Run, texts: Subject, load: Load) -> Side:
    """Return the stock side; of several settings the one with the highest rate in a short block each."""
    if run.args.pytorch_serve is None:
        raise BenchError("the stock side is read from a checkout of pytorch/serve; name it with --pytorch-serve DIR")
    python, checkout = stock_python(run.work_dir, "text"), run.args.pytorch_serve.resolve()
    settings = [parse_settings(text) for text in run.args.stock or ()] or ALL_SETTINGS
    sides: Sequence[Side] = [
        Stock(f"stock {each}", each, python, run.work_dir / f"stock-text-{each}", texts.files, checkout)
        for each in settings
    ]
    if len(sides) == 1:
        return sides[0]
    blocks = by_side(run.measure(sides, replace(load, seconds=run.args.search_seconds, probes=()), rounds=1))
    best = max(sides, key=lambda side: rate(blocks[side.name]))
    print(f"best: {best.name}", flush=True)
    return best
