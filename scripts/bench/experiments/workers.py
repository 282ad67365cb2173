"""Throughput over the number of workers through TorchServe: ours and stock in turns, MiniLM (text) and ResNet-50."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.models.subjects import SUBJECTS, Subject, make_subject
from bench.others import Settings, Stock, stock_python
from bench.ours import BATCH_SIZE, Archive, Ours
from bench.process import BenchError
from bench.report import Block, Ratio, by_side, rate
from bench.runner import Run, add_options
from bench.side import Side

FLOOR = 0.85
"""Throughput must not fall below this share of a side's best, however many workers there are."""

SIDES = ("ours", "stock")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--pytorch-serve", type=Path, metavar="DIR", help="a checkout, for stock minilm")
    parser.add_argument(
        "--stock-omp", type=int, metavar="N", help="OMP_NUM_THREADS of stock (default: unset, as shipped)"
    )
    parser.add_argument("--precision", default="int8", help="of our minilm (default: %(default)s)")
    add_options(parser)


def run(run: Run) -> int:
    """Run the benchmark."""
    args = run.args
    if "stock" in args.sides and "minilm" in args.models and args.pytorch_serve is None:
        raise BenchError(
            "stock minilm is pytorch/serve's example: give --pytorch-serve DIR, a checkout, or --sides ours"
        )
    blocks: list[Block] = []
    for model in args.models:
        subject, archive = make_subject(model, run.work_dir, args.precision)
        blocks += run.measure(_sides(run, model, subject, archive), run.load(subject.payloads))
    return run.report(blocks, best_ratios(blocks))


def _sides(run: Run, model: str, subject: Subject, archive: Archive) -> list[Side]:
    args = run.args
    sides: list[Side] = []
    for workers in args.workers:
        for side in args.sides:
            name = f"{model} {side} w{workers}"
            if side == "ours":
                sides.append(Ours(name, archive, workers))
                continue
            settings = Settings(workers, BATCH_SIZE, args.stock_omp)
            folder = run.work_dir / f"stock-{model}-{settings}"
            checkout = args.pytorch_serve and args.pytorch_serve.resolve()
            python = stock_python(run.work_dir, "text" if model == "minilm" else "image")
            sides.append(Stock(name, settings, python, folder, subject.files, checkout))
    return sides


def best_ratios(blocks: Sequence[Block]) -> list[Ratio]:
    """Compare each number of workers with that side's best one; ours has an aim."""
    rates = {name: rate(mine) for name, mine in by_side(blocks).items()}
    ratios = []
    for name in rates:
        family = name.rsplit(" ", 1)[0]
        best = max((other for other in rates if other.rsplit(" ", 1)[0] == family), key=rates.__getitem__)
        if name != best:
            ratios.append(Ratio(name, best, FLOOR if " ours " in name else None))
    return ratios
