"""Sentiment of real sentences in one run, A B C A B C: TorchServe's stock handler, FastAPI, and ours through TorchServe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.comparison import Comparison
from bench.fastapi_side import FastApiServer, FastApiSide
from bench.load import Load
from bench.material import download_sentences
from bench.ours import AUTO, OurSide
from bench.report import Block, machine
from bench.sentiment import Sentiment, make_sentiment
from bench.server import Server, Side
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json
from bench.stock import ALL_SETTINGS, StockSide, parse_settings, stock_venv
from ts_handlers.operate.load.payloads import read_payloads

SIDES = ("stock", "fastapi", "ours")

_BUSY_LOAD = 0.5
_AGREEMENT_SENTENCES = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 2 for what the caller must put right."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.pytorch_serve is None and "stock" in args.sides:
        parser.error("the stock side is read from a checkout of pytorch/serve; name it with --pytorch-serve DIR")
    return run_benchmark("text", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench/text", description=__doc__)
    parser.add_argument("--pytorch-serve", type=Path, metavar="DIR", help="a checkout of pytorch/serve")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--stock", metavar="SETTING", action="append",
                        help=f"one of {', '.join(map(str, ALL_SETTINGS))} (workers, batch, OMP threads; t0: unset); "
                        "may be given again; of several (default: all) the best is searched first")  # fmt: skip
    parser.add_argument("--search-seconds", type=float, default=10.0, help="block of each in that search (%(default)s)")
    parser.add_argument("--precision", default=AUTO,
                        help="of our build; auto: the fastest that passes the gate (default: %(default)s)")  # fmt: skip
    parser.add_argument("--build-options", default="", metavar="'--X Y'", help="more options for `ts-handlers build`")
    parser.add_argument("--payloads", type=Path, metavar="FILE", help="one sentence a line (default: rated sentences)")
    add_load_options(parser, warmup_seconds=5.0, rounds=3)
    add_place_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    comparison = _measure(args)
    print(f"\n{comparison.to_text()}")
    write_json(args, comparison.to_json())
    return 1 if any(summary.errors for summary in comparison.summaries().values()) else 0


def _measure(args: argparse.Namespace) -> Comparison:
    facts = machine()
    if float(facts["load_average_before"]) > _BUSY_LOAD:
        print(f"note: load average {facts['load_average_before']}; other work on this machine blurs every number")
    work_dir = make_work_dir(args)
    load = Load(
        payloads=args.payloads.resolve() if args.payloads else download_sentences(work_dir),
        clients=args.clients,
        warmup_seconds=args.warmup_seconds,
        folder=work_dir,
    )
    sides, searched = _prepare(args, make_sentiment(work_dir), load)
    blocks, agreement = _rounds(sides, load, args.rounds, args.seconds)
    facts_of = {side.name: side.describe() for side in sides}
    return Comparison(facts, facts_of, [*searched, *blocks], "ours", agreement)


def _prepare(args: argparse.Namespace, model: Sentiment, load: Load) -> tuple[list[Side], list[Block]]:
    """Make what each side needs, and find the best settings of stock; return the sides in the order of a round."""
    sides: list[Side] = []
    searched: list[Block] = []
    if "stock" in args.sides:
        best, searched = _search(_stock_candidates(args, model, load.folder), load, args.search_seconds)
        sides.append(best)
    made: Mapping[str, Side] = {
        "fastapi": FastApiSide(model=model.model, work_dir=load.folder),
        "ours": OurSide(model=model, work_dir=load.folder, precision=args.precision, build_options=args.build_options),
    }
    for name, side in made.items():
        if name in args.sides:
            side.prepare()
            sides.append(side)
    return sides, searched


def _stock_candidates(args: argparse.Namespace, model: Sentiment, work_dir: Path) -> list[StockSide]:
    venv = stock_venv(work_dir)
    checkout = args.pytorch_serve.resolve()
    return [
        StockSide(settings, pytorch_serve=checkout, venv=venv, model=model.model, work_dir=work_dir)
        for settings in (map(parse_settings, args.stock) if args.stock else ALL_SETTINGS)
    ]


def _search(candidates: Sequence[StockSide], load: Load, seconds: float) -> tuple[StockSide, list[Block]]:
    """Return the candidate of the highest rate in one short block each, and those blocks."""
    blocks: list[Block] = []
    for side in candidates:
        side.prepare()
        if len(candidates) > 1:
            with Server(side.launch()) as server:
                blocks.append(load.block(server, side.name, 0, seconds))
    if not blocks:
        return candidates[0], []
    best = max(blocks, key=lambda block: block.result.requests_per_second)
    print(f"best: {best.side}", flush=True)
    return next(side for side in candidates if side.name == best.side), blocks


def _rounds(sides: Sequence[Side], load: Load, rounds: int, seconds: float) -> tuple[list[Block], str | None]:
    """Start every side once, then load them in turn; those not under load are up and idle, their CPU is reported."""
    blocks: list[Block] = []
    with ExitStack() as stack:
        servers: list[Server] = []
        for side in sides:
            print(f"starting {side.name}", flush=True)
            kind = FastApiServer if isinstance(side, FastApiSide) else Server
            servers.append(stack.enter_context(kind(side.launch())))
        for number in range(1, rounds + 1):
            for side, server in zip(sides, servers, strict=True):
                idle = [other for other in servers if other is not server]
                before = sum(other.cpu_seconds() for other in idle)
                block = load.block(server, side.name, number, seconds)
                used = sum(other.cpu_seconds() for other in idle) - before
                blocks.append(replace(block, idle_cpu_seconds=used if idle else None))
        return blocks, _agreement(servers, load.payloads) if len(servers) > 1 else None


def _agreement(servers: Sequence[Server], payloads: Path) -> str:
    """Say on how many sentences all give the same label: proof that they serve the same model."""
    sentences = [payload.body.decode() for payload in read_payloads(payloads, limit=_AGREEMENT_SENTENCES)]
    same = sum(len({_label(server.predict(text)) for server in servers}) == 1 for text in sentences)
    return f"same label from all {len(servers)} on {same} of {len(sentences)} sentences"


def _label(answer: Any) -> str:
    """Return the label of {label: score}, or the answer where the label is all of it."""
    return str(max(answer, key=answer.__getitem__)) if isinstance(answer, dict) else str(answer)


if __name__ == "__main__":
    sys.exit(main())
