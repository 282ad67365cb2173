"""What the server costs: requests/s through TorchServe against the same archive's limit in process, and where it went."""

from __future__ import annotations

import argparse
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.attribution import STAGES, Round, ServedBlock
from bench.contender import BATCH_SIZE, Served
from bench.inprocess import MODES, InProcess
from bench.load import Load
from bench.models import MODELS, Model, make
from bench.overhead_report import overhead_json, overhead_text
from bench.process import BenchError, tree
from bench.prometheus import Sample, parse_samples, total
from bench.report import machine
from bench.schedstat import CpuTime, process_names, read_cpu_time
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json
from bench.wrk import WrkLoad, find_wrk
from ts_handlers.cpu import cpu_budget
from ts_handlers.operate.load.result import LoadResult


class Generator(Protocol):
    """What loads a server."""

    def run(self, url: str, seconds: float) -> LoadResult:
        """Load a URL and return what was measured."""


GENERATORS: Mapping[str, Callable[[Path, int, Path], Generator]] = {
    "bench": lambda payloads, clients, folder: Load(payloads, clients, 0.0, folder),
    "wrk": WrkLoad,
}
"""By name: what makes one of payloads, clients and a folder."""

_JAVA = "java"
_METRICS_TIMEOUT_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 2 for what the caller must put right."""
    args = _parser().parse_args(argv)
    return run_benchmark("overhead", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/overhead",
        description=__doc__,
        epilog="The limit in process is as many processes as there are CPUs, one thread each on a CPU of its own: the "
        "archive's decode and transform, padding and the model's run, nothing else; one payload a call, and sorted groups; "
        "the better counts. Through TorchServe it is `configure` and `serve` as they are, with the load on the same CPUs; "
        "only its blocks have a warm-up, in which Java compiles. There are as many clients as fill two batches for each of "
        "two workers: one that is computed, and one that waits, for a server that waits for requests is not at its limit. "
        "With more than one generator a round has a block of TorchServe for each.",
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precision", default="int8", help="of minilm (default: %(default)s)")
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=["bench"],
                        help="what loads the server: `ts-handlers bench`, wrk if installed (default: bench)")  # fmt: skip
    add_load_options(parser, warmup_seconds=10.0, rounds=3, clients=32)
    add_place_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    facts, num_cpus, work_dir = machine(), cpu_budget().cpus, make_work_dir(args)
    plan = Plan(args.rounds, args.seconds, args.warmup_seconds, max(1, int(num_cpus)))
    if "wrk" in args.generators:
        find_wrk()  # before the models are built
    rounds: dict[tuple[str, str], list[Round]] = {}
    for name in args.models:
        model = make(name, work_dir, None, args.precision)
        generators = {
            generator: GENERATORS[generator](model.payloads, args.clients, work_dir) for generator in args.generators
        }
        rounds |= {(name, generator): measured for generator, measured in _measure(model, generators, plan).items()}
    for (name, generator), measured in rounds.items():
        print(f"\n{overhead_text(f'{name}, loaded by {generator}', measured, num_cpus)}")
    models = [
        {"model": name, "generator": generator} | overhead_json(measured, num_cpus)
        for (name, generator), measured in rounds.items()
    ]
    write_json(args, {"machine": facts, "cpus": num_cpus, "models": models})
    return 1 if any(item.served.num_errors for measured in rounds.values() for item in measured) else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: Rounds of one block of each kind.
        seconds: Length of a block.
        warmup_seconds: Load before each block of the server, in which nothing is counted: Java compiles meanwhile.
        num_processes: Processes of the limit in process.
    """

    rounds: int
    seconds: float
    warmup_seconds: float
    num_processes: int


def _measure(model: Model, generators: Mapping[str, Generator], plan: Plan) -> dict[str, list[Round]]:
    """Start processes and server once, then let them work in turns."""
    model.ours.prepare()
    model_dir = model.ours.folder / "unpacked"
    with zipfile.ZipFile(model.ours.mar) as archive:
        archive.extractall(model_dir)
    log = model.ours.folder / "inprocess.log"
    measured: dict[str, list[Round]] = {name: [] for name in generators}
    print(f"{model.name}: starting the server, and {plan.num_processes} processes without one", flush=True)
    with (
        InProcess(model_dir, model.payloads, plan.num_processes, log=log) as processes,
        model.ours.serve(None) as served,
    ):
        for number in range(1, plan.rounds + 1):
            label = f"{model.name}, round {number} of {plan.rounds}"
            in_process = []
            for mode in MODES:
                print(f"{label}, in process, {mode}: {plan.seconds:g} s ...", flush=True)
                in_process.append(processes.block(mode, plan.seconds))
            for name, generator in generators.items():
                print(
                    f"{label}, TorchServe, {name}: {plan.warmup_seconds:g} s warm-up, {plan.seconds:g} s ...",
                    flush=True,
                )
                if plan.warmup_seconds:
                    generator.run(served.url, plan.warmup_seconds)
                measured[name].append(Round(tuple(in_process), served_block(served, generator, plan.seconds)))
                print(f"{label}, {name}: {measured[name][-1].ratio:.0%} of the limit", flush=True)
    return measured


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the server had done and used at one moment."""

    samples: list[Sample]
    java: CpuTime
    workers: CpuTime

    @classmethod
    def of(cls, served: Served) -> _Reading:
        if served.metrics_url is None:
            raise BenchError("this server has no metrics to read; measure one of ours")
        with urllib.request.urlopen(served.metrics_url, timeout=_METRICS_TIMEOUT_SECONDS) as response:  # noqa: S310
            samples = parse_samples(response.read().decode())
        processes = [stat for stat in tree(served.pid) if stat.pid != served.pid]
        names = process_names(stat.pid for stat in processes)
        java = [stat for stat in processes if names.get(stat.pid) == _JAVA]
        if len(java) != 1:
            raise BenchError(f"the server has {len(java)} processes called {_JAVA}; it must be one: {names}")
        workers = [stat for stat in processes if stat not in java]
        return cls(samples, read_cpu_time(java), read_cpu_time(workers))


def served_block(served: Served, load: Generator, seconds: float) -> ServedBlock:
    """Load the server and read what it used meanwhile; it counts the requests over the same time."""
    before = _Reading.of(served)
    result = load.run(served.url, seconds)
    after = _Reading.of(served)
    java, workers = after.java.since(before.java), after.workers.since(before.workers)

    def gained(name: str) -> float:
        return total(after.samples, name) - total(before.samples, name)

    def mean(name: str) -> float:
        """Of what a worker observed of its batches: it observes a sample of them."""
        count = gained(f"{name}_count")
        return gained(f"{name}_sum") / count if count else 0.0

    num_in_window = result.num_ok + result.num_errors
    num_requests = gained("ts_inference_requests_total")
    fill = mean("ts_handlers_batch_fill_ratio")
    num_batches = num_requests / (fill * BATCH_SIZE) if fill else 0.0
    return ServedBlock(
        requests_per_second=result.requests_per_second,
        p99_ms=result.p99_ms,
        num_errors=result.num_errors,
        num_requests=num_requests,
        java_s=java.running_s,
        java_threads_s=java.threads_s,
        worker_s=workers.running_s,
        worker_waiting_s=workers.waiting_s,
        stages_s={stage: mean(f"ts_handlers_{stage}_seconds") * num_batches for stage in STAGES},
        client_ms=result.client_cpu_s * 1000.0 / num_in_window if num_in_window else 0.0,
    )


if __name__ == "__main__":
    sys.exit(main())
