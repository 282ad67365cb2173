"""Load in steps on TorchServe while `ts-handlers autoscale` scales its workers: what happened to every request.

Every request is counted: sent, answered, refused with 503 (the queue was full), and anything else, which is a request that
was lost. Exit code 1 if one was lost, or if workers were added and removed in the same phase.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from bench.ours import Archive, Ours
from bench.process import TS_HANDLERS, Child, clean_env
from bench.runner import Run, bench
from bench.side import Served, describe, num_ready

PHASES = ("60:30", "90:250", "600:250", "120:30")
REFUSED = "503"
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Phase:
    """A block of load at a constant rate, sent on schedule whatever the server does.

    Attributes:
        seconds: Its length.
        rate: Requests per second.
    """

    seconds: float
    rate: float


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What happened in one phase.

    Attributes:
        phase: The phase.
        answered: Requests answered with 2xx.
        refused: Those refused with 503.
        lost: Every other outcome by status or exception.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        workers: (seconds since the phase began, ready workers), where they changed.
    """

    phase: Phase
    answered: int
    refused: int
    lost: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    workers: list[tuple[float, int]]

    @property
    def is_flapping(self) -> bool:
        """Whether workers were both added and removed."""
        counts = [count for _, count in self.workers]
        return len({later > earlier for earlier, later in pairwise(counts)}) == 2

    def describe(self) -> str:
        """Say it in a line."""
        workers = " -> ".join(str(count) for _, count in self.workers)
        sent = self.answered + self.refused + sum(self.lost.values())
        return (
            f"{self.phase.seconds:g} s at {self.phase.rate:g}/s: sent {sent}, answered {self.answered}, refused (503) "
            f"{self.refused}, lost {self.lost or 0}; p50 {self.p50_ms or 0:.0f} ms, p99 {self.p99_ms or 0:.0f} ms; "
            f"workers {workers}{' FLAPPING' if self.is_flapping else ''}"
        )


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("archive", type=Path, metavar="MAR", help="an archive that `ts-handlers build` made")
    parser.add_argument("--payloads", type=Path, required=True, help="as `ts-handlers bench --payloads`")
    parser.add_argument("--phases", nargs="+", type=parse_phase, default=[parse_phase(text) for text in PHASES],
                        metavar="S:RATE", help=f"seconds and requests per second (default: {' '.join(PHASES)})")  # fmt: skip
    parser.add_argument("--max-workers", type=int, default=4)
    parser.add_argument("--max-cpus", type=float, help="budget of the workers (default: this machine's)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the model's policy")


def parse_phase(text: str) -> Phase:
    """Read SECONDS:RATE."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no phase; write SECONDS:RATE")
    return Phase(float(match.group(1)), float(match.group(2)))


def run(run: Run) -> int:
    """Run the benchmark."""
    args, folder = run.args, run.work_dir / "autoscale"
    archive = Archive.of(args.archive, folder)
    # one thread a worker: alone on this machine it would take all CPUs, and a second one would add nothing
    ours = Ours("ours", archive, workers=1, batch_size=args.batch_size, threads=1)
    results = []
    log = folder / "autoscale.log"
    with ours.serve() as served:
        config = folder / "autoscale.yaml"
        config.write_text(_settings(args, archive.model, served), encoding="utf-8")
        command: list[str | Path] = [*TS_HANDLERS, "autoscale", "--config", config]
        with Child(command, log=log, env=clean_env(), cwd=folder):
            for phase in args.phases:
                results.append(_load(served, archive.model, phase, args.payloads.resolve(), folder))
                print(results[-1].describe(), flush=True)
    print(log.read_text(encoding="utf-8"), end="")
    lost = sum(sum(result.lost.values()) for result in results)
    answered, refused = (sum(getattr(result, name) for result in results) for name in ("answered", "refused"))
    print(f"in all: answered {answered}, refused (503) {refused}, lost {lost}")
    run.write_json(phases=[asdict(result) for result in results])
    return int(lost > 0 or any(result.is_flapping for result in results))


def _settings(args: argparse.Namespace, model: str, served: Served) -> str:
    policy = {"max_workers": args.max_workers, "target_in_flight": float(args.batch_size)}
    policy |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    server = {"management_url": served.management_url, "metrics_url": served.metrics_url}
    budget = {} if args.max_cpus is None else {"max_cpus": args.max_cpus}
    return yaml.safe_dump(
        {"torchserve": server, "models": {model: policy}, "budget": budget, "metrics": {"port": None}}
    )


def _load(served: Served, model: str, phase: Phase, payloads: Path, folder: Path) -> PhaseResult:
    """Send one phase, and watch the workers meanwhile."""
    seen: list[tuple[float, int]] = []
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(str(served.management_url), model, seen, is_over))
    watcher.start()
    try:
        options = ("--rate", str(phase.rate), "--concurrency", "512")
        result = bench(served.url, payloads, folder, *options, seconds=phase.seconds)
    finally:
        is_over.set()
        watcher.join()
    lost = {kind: count for kind, count in result["errors"].items() if kind != REFUSED}
    refused = result["errors"].get(REFUSED, 0)
    return PhaseResult(phase, result["num_ok"], refused, lost, result["p50_ms"], result["p99_ms"], seen)


def _watch(management_url: str, model: str, seen: list[tuple[float, int]], is_over: threading.Event) -> None:
    """Note the ready workers whenever their number changes."""
    started = time.monotonic()
    while not is_over.is_set():
        ready = num_ready(describe(management_url, model))
        if not seen or seen[-1][1] != ready:
            seen.append((round(time.monotonic() - started, 1), ready))
        is_over.wait(_POLL_S)
