"""How much of the time one worker's model computes under load, and what the worker does while it does not."""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench.attribution import STAGES
from bench.contender import BATCH_SIZE, Ours, Served
from bench.image_client import Sent, send_images
from bench.image_sides import PRECISIONS, OurModel
from bench.pictures import make_pictures
from bench.process import BenchError
from bench.prometheus import Sample, parse_samples, total
from bench.report import machine, table
from bench.resnet import make_resnet, resnet_venv
from bench.resnet_model import BLOCKS_OF
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json

MAX_IDLE = 0.10
"""Aim: on a single worker the model is idle for less than this part of the time."""

EXIT_MISSED = 1
_METRICS_TIMEOUT_SECONDS = 10.0
_OUTSIDE = "outside"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a model is idle for longer than the aim, 2 for what the caller must put right."""
    args = _parser().parse_args(argv)
    return run_benchmark("idle", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/idle",
        description=__doc__,
        epilog="One worker has all CPUs. The model is idle while no call of it is being made: while the worker reads "
        "headers, waits for pictures to be decoded and resized, formats answers, or is outside the handler, where it reads "
        "and writes messages and waits for the frontend and, on the same CPUs, for the load generator.",
    )
    parser.add_argument(
        "--layers", type=int, choices=tuple(BLOCKS_OF), default=152, help="of the ResNet (default: %(default)s)"
    )
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=["int8", "fp32"])
    add_load_options(parser, warmup_seconds=6.0, rounds=2)
    add_place_options(parser)
    return parser


@dataclass(frozen=True, slots=True)
class IdleBlock:
    """What a worker did for some seconds.

    Attributes:
        name: Precision.
        images_per_second: Rate.
        shares: Stage, or `outside` the handler, -> its part of the time; together 1.
        num_errors: Answers that were none.
    """

    name: str
    images_per_second: float
    shares: dict[str, float]
    num_errors: int

    @property
    def idle(self) -> float:
        """Part of the time in which the model did not compute."""
        return 1.0 - self.shares["run"]


def _run(args: argparse.Namespace) -> int:
    facts, work_dir = machine(), make_work_dir(args)
    venv, pictures = resnet_venv(work_dir), make_pictures(work_dir / "pictures")
    files = make_resnet(venv, work_dir, pictures, args.layers)
    sides: dict[str, Ours] = {}
    for precision in args.precisions:
        folder = work_dir / f"ours-{files.weights.parent.name}-{precision}"
        sides[precision] = OurModel(files, pictures, precision, folder).ours
        if not sides[precision].mar.is_file():
            sides[precision].prepare()
    bodies = [picture.read_bytes() for picture in sorted(pictures.iterdir())]
    blocks = []
    for number in range(1, args.rounds + 1):
        for name, ours in sides.items():
            with ours.serve(1) as served:
                blocks.append(_measure(name, served, bodies, args))
            print(f"round {number}, {name}: idle for {blocks[-1].idle:.1%}", flush=True)
    print(f"\n{idle_table(blocks)}")
    write_json(args, {"machine": facts, "blocks": [asdict(block) for block in blocks]})
    return EXIT_MISSED if any(block.idle >= MAX_IDLE or block.num_errors for block in blocks) else 0


def _measure(name: str, served: Served, bodies: Sequence[bytes], args: argparse.Namespace) -> IdleBlock:
    with _load(served.url, bodies, args.clients) as sent:
        time.sleep(args.warmup_seconds)
        started, before = time.perf_counter(), _read(served)
        time.sleep(args.seconds)
        seconds, after = time.perf_counter() - started, _read(served)
    return idle_block(name, before, after, seconds, sent.result().num_errors)


def idle_block(
    name: str, before: Sequence[Sample], after: Sequence[Sample], seconds: float, num_errors: int = 0
) -> IdleBlock:
    """Return what the worker's metrics say of the time between two readings of them."""

    def gained(metric: str) -> float:
        return total(after, metric) - total(before, metric)

    def mean(metric: str) -> float:
        """Of what a worker observed of its batches: it observes a sample of them."""
        count = gained(f"{metric}_count")
        return gained(f"{metric}_sum") / count if count else 0.0

    num_requests = gained("ts_inference_requests_total")
    fill = mean("ts_handlers_batch_fill_ratio")
    if not fill:
        raise BenchError("the worker reported no batch; measure for longer with --seconds")
    num_batches = num_requests / (fill * BATCH_SIZE)
    shares = {stage: mean(f"ts_handlers_{stage}_seconds") * num_batches / seconds for stage in STAGES}
    shares[_OUTSIDE] = 1.0 - sum(shares.values())
    return IdleBlock(name, num_requests / seconds, shares, num_errors)


def idle_table(blocks: Sequence[IdleBlock]) -> str:
    """Return the medians of the rounds as a table, and each round's idle time."""
    head = [
        "model",
        "images/s",
        "model computes",
        "waits for pictures",
        "reads headers",
        "formats",
        "outside the handler",
    ]
    lines = [[*head, "idle in each round", "errors"]]
    for name in dict.fromkeys(block.name for block in blocks):
        mine = [block for block in blocks if block.name == name]
        stages = ("run", "transform", "decode", "format", _OUTSIDE)
        shares = [f"{statistics.median(block.shares[stage] for block in mine):.1%}" for stage in stages]
        rate = f"{statistics.median(block.images_per_second for block in mine):.1f}"
        idle = ", ".join(f"{block.idle:.1%}" for block in mine)
        lines.append([name, rate, *shares, idle, str(sum(block.num_errors for block in mine))])
    return table(lines)


@contextmanager
def _load(url: str, bodies: Sequence[bytes], clients: int) -> Iterator[Future[Sent]]:
    """Load the server until the block ends, and yield what will be known then."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(send_images, url, bodies, sys.maxsize, clients, ended)
        finally:
            ended.set()


def _read(served: Served) -> list[Sample]:
    if served.metrics_url is None:
        raise BenchError("this server has no metrics to read; measure one of ours")
    with urllib.request.urlopen(served.metrics_url, timeout=_METRICS_TIMEOUT_SECONDS) as response:  # noqa: S310
        return parse_samples(response.read().decode())


if __name__ == "__main__":
    sys.exit(main())
