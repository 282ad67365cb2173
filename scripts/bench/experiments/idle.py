"""How much of the time one worker's model computes under load, and what the worker does while it does not."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from bench.models.resnet import LAYERS
from bench.models.subjects import PRECISIONS, make_images
from bench.ours import BATCH_SIZE, Ours
from bench.process import BenchError
from bench.report import Block, by_side, median, table
from bench.runner import Run, add_options

MAX_IDLE = 0.10
"""Aim: on a single worker the model is idle for less than this part of the time."""

STAGES = ("run", "transform", "decode", "format")
"""What a worker of ours times, ts_handlers_STAGE_seconds: the model, and what it waits for meanwhile."""

_OUTSIDE = "outside"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "One worker has all CPUs. The model is idle while no call of it is being made: while the worker reads headers, "
        "waits for pictures to be decoded and resized, formats answers, or is outside the handler, where it reads and "
        "writes messages and waits for the frontend and, on the same CPUs, for the load generator."
    )
    parser.add_argument("--layers", type=int, choices=LAYERS, default=152, help="of the ResNet (default: %(default)s)")
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=["int8", "fp32"])
    add_options(parser)


def run(run: Run) -> int:
    """Run the benchmark; 1 if a model is idle for longer than the aim."""
    images = make_images(run.work_dir, run.args.layers)
    sides = [Ours(precision, images.archive(*PRECISIONS[precision]), workers=1) for precision in run.args.precisions]
    blocks = run.measure(sides, run.load(images.payloads))
    shares = {name: [stage_shares(block) for block in mine] for name, mine in by_side(blocks).items()}
    failed = run.report(blocks, text=_table(shares), shares=shares)
    return failed or int(any(1.0 - share["run"] >= MAX_IDLE for mine in shares.values() for share in mine))


def stage_ms(gained: Mapping[str, float]) -> dict[str, float]:
    """Return the milliseconds of a request in each stage: the mean of the batches that the worker observed, by their fill.

    Raises:
        BenchError: It observed none: the block was too short.
    """

    def mean(metric: str) -> float:
        count = gained.get(f"{metric}_count", 0.0)
        return gained[f"{metric}_sum"] / count if count else 0.0

    fill = mean("ts_handlers_batch_fill_ratio")
    if not fill:
        raise BenchError("the worker reported no batch; measure for longer with --seconds")
    return {stage: mean(f"ts_handlers_{stage}_seconds") * 1000 / (fill * BATCH_SIZE) for stage in STAGES}


def stage_shares(block: Block) -> dict[str, float]:
    """Return each stage's part of one worker's time, and that outside the handler; together 1."""
    shares = {stage: ms / 1000 * block.requests_per_second for stage, ms in stage_ms(block.gained).items()}
    return shares | {_OUTSIDE: 1.0 - sum(shares.values())}


def _table(shares: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    head = ["model", "computes", "waits for pictures", "reads headers", "formats", "outside the handler"]
    rows = [[*head, "idle in each round"]]
    for name, mine in shares.items():
        parts = [f"{median([share[stage] for share in mine]):.1%}" for stage in (*STAGES, _OUTSIDE)]
        rows.append([name, *parts, ", ".join(f"{1.0 - share['run']:.1%}" for share in mine)])
    return f"\n{table(rows)}"
