"""Throughput over the number of workers, through TorchServe: ours and stock in turns, MiniLM (text) and ResNet-50."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.contender import BATCH_SIZE, Contender
from bench.load import Load
from bench.models import MODELS, Model, StockOptions, make
from bench.report import machine
from bench.scaling import ScalingBlock, cells, holds, scaling_json, scaling_table, verdict
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json

WORKERS = (1, 2, 4, 8)
EXIT_FAILS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if ours falls too low, 2 for what the caller must put right."""
    parser = _parser()
    args = parser.parse_args(argv)
    if "stock" in args.sides and "minilm" in args.models and args.pytorch_serve is None:
        parser.error(
            "stock minilm is pytorch/serve's example; name a checkout with --pytorch-serve DIR, or --sides ours"
        )
    return run_benchmark("workers", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/workers",
        description=__doc__,
        epilog=f"Batches of up to {BATCH_SIZE} on both sides; a fresh server for every block. Blocks are run in the order "
        "ours and stock of the first number of workers, then of the next, and so on, as often as there are rounds.",
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--workers", nargs="+", type=int, default=list(WORKERS), metavar="N")
    parser.add_argument("--sides", nargs="+", choices=("ours", "stock"), default=["ours", "stock"])
    parser.add_argument(
        "--pytorch-serve", type=Path, metavar="DIR", help="a checkout of pytorch/serve, for stock minilm"
    )
    parser.add_argument(
        "--stock-omp", type=int, metavar="N", help="OMP_NUM_THREADS of stock (default: unset, as shipped)"
    )
    parser.add_argument("--precision", default="int8", help="of our minilm (default: %(default)s)")
    add_load_options(parser, warmup_seconds=5.0, rounds=2)
    add_place_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    facts = machine()
    blocks: list[ScalingBlock] = []
    for block in _blocks(args):
        blocks.append(block)
        p99 = "-" if block.p99_ms is None else f"{block.p99_ms:.0f} ms"
        print(f"  {block.requests_per_second:.1f} req/s, p99 {p99}, errors {block.num_errors}", flush=True)
    found = cells(blocks)
    for model in args.models:
        print(f"\n{scaling_table(found, model)}")
    print(f"\n{verdict(found)}".rstrip())
    write_json(args, {"machine": facts, **scaling_json(blocks)})
    return EXIT_FAILS if any(holds(found, model) is False for model in args.models) else 0


def _blocks(args: argparse.Namespace) -> Iterator[ScalingBlock]:
    work_dir = make_work_dir(args)
    stock = None
    if "stock" in args.sides:
        stock = StockOptions(args.pytorch_serve and args.pytorch_serve.resolve(), args.stock_omp)
    models = [make(name, work_dir, stock, args.precision) for name in args.models]
    contenders = [(model, side) for model in models for side in model.sides() if side.side in args.sides]
    for _, side in contenders:
        side.prepare()
    for number in range(1, args.rounds + 1):
        for model in models:
            load = Load(model.payloads, args.clients, args.warmup_seconds, work_dir)
            for workers in args.workers:
                for side in (side for owner, side in contenders if owner is model):
                    yield _block(model, side, workers, number, load, args.seconds)


def _block(model: Model, side: Contender, workers: int, number: int, load: Load, seconds: float) -> ScalingBlock:
    print(f"round {number}, {model.name}, {side.side}, {workers} workers: starting", flush=True)
    with side.serve(workers) as served:
        result = load.run(served.url, seconds)
    return ScalingBlock(
        model=model.name,
        side=side.side,
        workers=workers,
        round=number,
        requests_per_second=result.requests_per_second,
        p99_ms=result.p99_ms,
        num_errors=result.num_errors,
    )


if __name__ == "__main__":
    sys.exit(main())
