"""What the server costs: requests/s through TorchServe against the same archive's limit in process, and where it went."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import median

from bench.experiments.idle import stage_ms
from bench.limit import Limit
from bench.models.subjects import SUBJECTS, make_subject
from bench.ours import Ours
from bench.report import Block, Ratio, by_side, number, rate, table
from bench.runner import Run, add_options
from bench.side import Side

AIM = 0.9

SIZES = (1, 16)
"""Payloads at a time in process: one, and as many for each of two processes as 32 clients have in flight."""

MODEL_RUN = "worker: model run"
HOOKS = "worker: decode, transform"
IDLE = "idle, or used by others"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "The limit in process is as many processes as there are CPUs, one thread each on a CPU of its own: the archive's "
        "decode and transform, padding and the model's run, nothing else; one payload a call, and sorted groups; the better "
        "counts. Through TorchServe it is `configure` and `serve` as they are, with the load on the same CPUs. There are as "
        "many clients as fill two batches for each of two workers: one that is computed, and one that waits, for a server "
        "that waits for requests is not at its limit."
    )
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--precision", default="int8", help="of minilm (default: %(default)s)")
    add_options(parser, rounds=3, clients=32, warmup_seconds=10.0)


def run(run: Run) -> int:
    """Run the benchmark."""
    num_cpus = int(run.machine["cpus_usable"])
    blocks: list[Block] = []
    ratios: list[Ratio] = []
    parts: dict[str, Mapping[str, float]] = {}
    for model in run.args.models:
        subject, archive = make_subject(model, run.work_dir, run.args.precision)
        load = run.load(subject.payloads)
        sides: list[Side] = [
            Limit(f"{model} in process, {size} a call", archive, subject.payloads, size, num_cpus) for size in SIZES
        ]
        sides.append(Ours(f"{model} served", archive))
        blocks += (mine := run.measure(sides, load))
        of_side = by_side(mine)
        limit = max((side.name for side in sides[: len(SIZES)]), key=lambda name: rate(of_side[name]))
        ratios.append(Ratio(f"{model} served", limit, AIM))
        parts |= {
            name: median_parts([(limit_parts if block.more else served_parts)(block, num_cpus) for block in one])
            for name, one in of_side.items()
        }
    return run.report(blocks, ratios, _table(parts), parts=parts)


def served_parts(block: Block, num_cpus: float) -> dict[str, float]:
    """Return the CPU milliseconds of one request by where they went; together num_cpus / rate.

    The stages are timed by the clock on the wall. A worker's one thread never sleeps within them, so what they hold beside
    CPU time is waiting for a CPU, and it is taken out in the proportion the workers as a whole had of it.
    """
    num_requests = block.gained.get("ts_inference_requests_total", 0.0)
    if num_requests <= 0 or block.requests_per_second <= 0:
        return {}
    worker_s = block.cpu.all_s - block.cpu.java_s
    on_cpu = worker_s / (worker_s + block.cpu.waiting_s) if worker_s else 0.0
    stages = {stage: ms * on_cpu for stage, ms in stage_ms(block.gained).items()}
    parts = {
        MODEL_RUN: stages["run"],
        HOOKS: stages["decode"] + stages["transform"],
        "worker: format, JSON": stages["format"],
        "worker: the rest (codec, sockets, metric lines, planning)": worker_s * 1000 / num_requests
        - sum(stages.values()),
        "Java frontend": block.cpu.java_s * 1000 / num_requests,
        "load generator": block.client_cpu_s * 1000 / num_requests,
    }
    return parts | {IDLE: num_cpus * 1000 / block.requests_per_second - sum(parts.values())}


def limit_parts(block: Block, num_cpus: float) -> dict[str, float]:
    """Return the same of a block in process; there, only the model and the hooks take time."""
    if not block.num_answered:
        return {}
    hooks_s, run_s, cpu_s = (block.more[name] for name in ("hooks_s", "run_s", "cpu_s"))
    per_payload = min(1.0, cpu_s / (hooks_s + run_s)) * 1000 / block.num_answered
    parts = {MODEL_RUN: run_s * per_payload, HOOKS: hooks_s * per_payload}
    return parts | {IDLE: num_cpus * 1000 / block.requests_per_second - sum(parts.values())}


def median_parts(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each part over the rounds that have it."""
    names = dict.fromkeys(name for parts in many for name in parts)
    return {name: median(parts[name] for parts in many if name in parts) for name in names}


def _table(parts: Mapping[str, Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for one in parts.values() for name in one if name != IDLE)
    rows = [["CPU ms a request, median of the rounds", *parts]]
    rows += [[name, *(number(one.get(name), 3) for one in parts.values())] for name in [*names, IDLE]]
    rows.append(["together: CPUs / rate", *(number(sum(one.values()), 3) for one in parts.values())])
    return f"\n{table(rows)}"
