"""Text classification through TorchServe: the stock Hugging Face handler against ours, A B A B in one run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.load import Load
from bench.material import download_sentences, make_model
from bench.ours import OurSide
from bench.process import exit_on_signals
from bench.report import Block, Report, machine
from bench.server import Server, Side
from bench.stock import ALL_SETTINGS, StockSide, parse_settings, stock_venv
from ts_handlers.errors import OperatorError
from ts_handlers.operate.load.payloads import read_payloads

_WORK_DIR = Path(tempfile.gettempdir()) / "ts-handlers-bench"
_BUSY_LOAD = 0.5
_AGREEMENT_SENTENCES = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 2 for what the caller must put right."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.pytorch_serve is None and args.sides != "ours":
        parser.error("the stock side is read from a checkout of pytorch/serve; name it with --pytorch-serve DIR")
    exit_on_signals()
    try:
        report = _measure(args)
    except OperatorError as error:
        print(f"bench text: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench text: interrupted; everything it started is stopped", file=sys.stderr)
        return 130
    print(f"\n{report.to_text()}")
    if args.json:
        args.json.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
        print(f"written: {args.json}")
    return 1 if any(summary.errors for summary in report.summaries().values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench/text", description=__doc__)
    parser.add_argument("--pytorch-serve", type=Path, metavar="DIR", help="a checkout of pytorch/serve")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", default=_WORK_DIR,
                        help="environments, model and logs; kept for the next run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--sides", choices=("both", "stock", "ours"), default="both")
    parser.add_argument("--stock", metavar="SETTING", action="append",
                        help=f"one of {', '.join(map(str, ALL_SETTINGS))} (workers, batch, OMP threads; t0: unset); "
                        "may be given again; of several (default: all) the best is searched first")  # fmt: skip
    parser.add_argument("--search-seconds", type=float, default=10.0, help="block of each in that search (%(default)s)")
    parser.add_argument("--precision", default="int8", help="of our build (default: %(default)s)")
    parser.add_argument("--build-options", default="", metavar="'--X Y'", help="more options for `ts-handlers build`")
    parser.add_argument("--payloads", type=Path, metavar="FILE", help="one sentence a line (default: rated sentences)")
    parser.add_argument("--clients", type=int, default=16, help="closed-loop clients (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured part of a block (default: %(default)s)")
    parser.add_argument("--warmup-seconds", type=float, default=5.0, help="load before it (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each side (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    return parser


def _measure(args: argparse.Namespace) -> Report:
    facts = machine()
    if float(facts["load_average_before"]) > _BUSY_LOAD:
        print(f"note: load average {facts['load_average_before']}; other work on this machine blurs every number")
    work_dir: Path = args.work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    venv = stock_venv(work_dir)
    model = make_model(venv, work_dir)
    load = Load(
        payloads=args.payloads.resolve() if args.payloads else download_sentences(venv, work_dir),
        clients=args.clients,
        warmup_seconds=args.warmup_seconds,
        folder=work_dir,
    )
    sides: list[Side] = []
    searched: list[Block] = []
    if args.sides != "ours":
        candidates = [
            StockSide(settings, pytorch_serve=args.pytorch_serve.resolve(), venv=venv, model=model, work_dir=work_dir)
            for settings in (map(parse_settings, args.stock) if args.stock else ALL_SETTINGS)
        ]
        best, searched = _search(candidates, load, args.search_seconds)
        sides.append(best)
    if args.sides != "stock":
        ours = OurSide(model=model, work_dir=work_dir, precision=args.precision, build_options=args.build_options)
        ours.prepare()
        sides.append(ours)
    blocks, agreement = _rounds(sides, load, args.rounds, args.seconds)
    return Report(facts, {side.name: side.describe() for side in sides}, [*searched, *blocks], agreement)


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
    """Start every side once, then load them in turn; the one not under load is up and idle, its CPU is reported."""
    blocks: list[Block] = []
    with ExitStack() as stack:
        servers: list[Server] = []
        for side in sides:
            print(f"starting {side.name}", flush=True)
            servers.append(stack.enter_context(Server(side.launch())))
        for number in range(1, rounds + 1):
            for side, server in zip(sides, servers, strict=True):
                idle = next((other for other in servers if other is not server), None)
                blocks.append(load.block(server, side.name, number, seconds, idle))
        return blocks, _agreement(servers, load.payloads) if len(servers) == 2 else None


def _agreement(servers: Sequence[Server], payloads: Path) -> str:
    """Say on how many sentences both give the same label: proof that both serve the same model."""
    sentences = [payload.body.decode() for payload in read_payloads(payloads, limit=_AGREEMENT_SENTENCES)]
    same = sum(len({_label(server.predict(text)) for server in servers}) == 1 for text in sentences)
    return f"same label from both on {same} of {len(sentences)} sentences"


def _label(answer: Any) -> str:
    """Return the label of {label: score}, or the answer where the label is all of it."""
    return str(max(answer, key=answer.__getitem__)) if isinstance(answer, dict) else str(answer)


if __name__ == "__main__":
    sys.exit(main())
