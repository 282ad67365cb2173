"""Make every engine there is of some models, measure what each costs and gains, and write docs/precision.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.precision.images import EFFICIENTNET, RESNET, measure_efficientnet, measure_resnet
from bench.precision.measured import Measured
from bench.precision.page import machine_text, page_text, write_page
from bench.precision.plot import draw_frontier
from bench.precision.texts import EMBEDDINGS, SENTIMENT, measure_embeddings, measure_sentiment
from bench.precision.trying import Plan
from bench.sentiment import make_sentiment
from bench.shared import add_place_options, make_work_dir, run_benchmark, write_json
from ts_handlers.build.trial import trial_table
from ts_handlers.cpu.features import read_cpuinfo

MODELS = (SENTIMENT, EMBEDDINGS, EFFICIENTNET, RESNET)
PLOTTED = (EMBEDDINGS,)

_PAGE = Path(__file__).parents[3] / "docs" / "precision.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 2 for what the caller must put right."""
    args = _parser().parse_args(argv)
    return run_benchmark("precision", lambda: _run(args, sys.argv[1:] if argv is None else argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/precision", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", default=[], metavar="WORD",
                        help="only methods with one of these words in their name, and onnx fp32 (default: all)")  # fmt: skip
    parser.add_argument(
        "--samples", type=int, default=2000, help="sentences to judge on, at most (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", default=_PAGE,
                        help="the page; what is not between its markers stays (default: docs/precision.md)")  # fmt: skip
    add_place_options(parser)
    return parser


def _run(args: argparse.Namespace, given: Sequence[str]) -> int:
    work_dir = make_work_dir(args)
    plan = Plan(work_dir, args.samples, tuple(args.methods))
    models = []
    for name in args.models:
        measured = _measures(plan)[name]()
        print(f"\n{trial_table(measured.trials)}", flush=True)
        models.append(measured)
    output: Path = args.output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    plots = {}
    for model in models:
        if model.name in PLOTTED:
            plots[model.name] = f"{output.stem}-{model.name}.svg"
            draw_frontier(model, output.with_name(plots[model.name]))
    machine = machine_text(read_cpuinfo(), len(os.sched_getaffinity(0)))
    command = " ".join(["scripts/precision", *_shown(given)])
    write_page(output, page_text(models, command, machine, plots))
    print(f"\nwritten: {output}")
    write_json(args, {"machine": machine, "models": {model.name: model.to_json() for model in models}})
    return 0


def _measures(plan: Plan) -> Mapping[str, Callable[[], Measured]]:
    data = partial(make_sentiment, plan.work_dir)
    return {
        SENTIMENT: lambda: measure_sentiment(data(), plan),
        EMBEDDINGS: lambda: measure_embeddings(data(), plan),
        EFFICIENTNET: lambda: measure_efficientnet(plan),
        RESNET: lambda: measure_resnet(plan),
    }


def _shown(given: Sequence[str]) -> list[str]:
    """Leave out options that say where files go."""
    shown: list[str] = []
    words = iter(given)
    for word in words:
        if word in ("--work-dir", "--output", "--json"):
            next(words, None)
        elif not word.startswith(("--work-dir=", "--output=", "--json=")):
            shown.append(word)
    return shown


if __name__ == "__main__":
    sys.exit(main())
