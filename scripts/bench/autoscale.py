"""Load in steps on TorchServe while `ts-handlers autoscale` scales its workers: what happened to every request.

Every request is counted: sent, answered, refused with 503 (the queue was full), and anything else, which is a request that
was lost. Exit code 1 if one was lost, or if workers were added and removed in the same phase.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from bench.process import run
from bench.server import TS_HANDLERS, clean_env, fresh_folder
from bench.shared import WORK_DIR, run_benchmark, write_json
from ts_handlers.cpu import THREADS_ENV
from ts_handlers.errors import ConfigError
from ts_handlers.operate.autoscale.settings import TorchServeSettings, client_of
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.payloads import Payload, read_payloads
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.torchserve.client import TorchServe
from ts_handlers.operate.torchserve.process.ports import free_port_options

PHASES = ("60:30", "90:250", "600:250", "120:30")
EXIT_FAILS = 1
REFUSED = "503"
_CONFIGURE_SECONDS = 60.0
_POLL_S = 0.5
_STOP_SECONDS = 10.0


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
        sent: Requests.
        answered: Those answered with 2xx.
        refused: Those refused with 503.
        lost: Every other outcome by status or exception.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        workers: (seconds since the phase began, ready workers), where they changed.
    """

    phase: Phase
    sent: int
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
        latencies = f"p50 {self.p50_ms or 0:.0f} ms, p99 {self.p99_ms or 0:.0f} ms"
        lost = f"lost {self.lost}" if self.lost else "lost 0"
        return (
            f"{self.phase.seconds:g} s at {self.phase.rate:g}/s: sent {self.sent}, answered {self.answered}, refused (503) "
            f"{self.refused}, {lost}; {latencies}; workers {workers}{' FLAPPING' if self.is_flapping else ''}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a request was lost or workers flapped, 2 for what the caller must put right."""
    parser = _parser()
    args = parser.parse_args(argv)
    return run_benchmark("autoscale", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench/autoscale", description=__doc__)
    parser.add_argument("archive", type=Path, metavar="MAR", help="an archive that `ts-handlers build` made")
    parser.add_argument("--payloads", type=Path, required=True, help="as `ts-handlers bench --payloads`")
    parser.add_argument("--phases", nargs="+", type=_phase, default=[_phase(text) for text in PHASES], metavar="S:RATE",
                        help=f"seconds and requests per second (default: {' '.join(PHASES)})")  # fmt: skip
    parser.add_argument("--max-workers", type=int, default=4)
    parser.add_argument("--max-cpus", type=float, help="budget of the workers (default: this machine's)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the model's policy")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", default=WORK_DIR, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    return parser


def _phase(text: str) -> Phase:
    match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no phase; write SECONDS:RATE")
    return Phase(float(match.group(1)), float(match.group(2)))


def _run(args: argparse.Namespace) -> int:
    folder = fresh_folder(args.work_dir.resolve() / "autoscale")
    store = folder / "store"
    store.mkdir()
    shutil.copy(args.archive, store)
    model = args.archive.stem
    payloads = read_payloads(args.payloads)
    run(
        [*TS_HANDLERS, "configure", store, "--workers", "1", "--batch-size", str(args.batch_size), *free_port_options(),
         "--disable-token-authorization"],
        log=folder / "configure.log", env=clean_env(), cwd=folder, timeout_seconds=_CONFIGURE_SECONDS,
    )  # fmt: skip
    results = []
    # one thread a worker: alone on this machine it would take all CPUs, and a second one would add nothing
    with BackgroundServer(store, environ=clean_env(folder, **{THREADS_ENV: "1"})) as server:
        where = TorchServeSettings(server.config.management.url, _metrics_url(server))
        with _autoscaler(_settings(args, model, where), folder) as log:
            for phase in args.phases:
                result = _load(server, where, model, phase, payloads)
                print(result.describe(), flush=True)
                results.append(result)
        print(log.read_text(encoding="utf-8"), end="")
    total = {name: sum(getattr(result, name) for result in results) for name in ("sent", "answered", "refused")}
    lost = sum(sum(result.lost.values()) for result in results)
    print(f"in all: sent {total['sent']}, answered {total['answered']}, refused (503) {total['refused']}, lost {lost}")
    write_json(args, {"phases": [asdict(result) for result in results], "total": total | {"lost": lost}})
    return EXIT_FAILS if lost or any(result.is_flapping for result in results) else 0


def _metrics_url(server: BackgroundServer) -> str:
    if server.config.metrics is None:
        raise ConfigError("the server has no metrics")
    return f"{server.config.metrics.url}/metrics"


def _settings(args: argparse.Namespace, model: str, where: TorchServeSettings) -> dict[str, Any]:
    policy: dict[str, Any] = {"max_workers": args.max_workers, "target_in_flight": float(args.batch_size)}
    policy |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    budget = {} if args.max_cpus is None else {"max_cpus": args.max_cpus}
    server = {"management_url": where.management_url, "metrics_url": where.metrics_url}
    return {"torchserve": server, "models": {model: policy}, "budget": budget, "metrics": {"port": None}}


@contextmanager
def _autoscaler(settings: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Run `ts-handlers autoscale`; yield its log."""
    config, log = folder / "autoscale.yaml", folder / "autoscale.log"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*TS_HANDLERS, "autoscale", "--config", str(config)], env=clean_env(), stdout=output, stderr=output
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)


def _load(
    server: BackgroundServer, where: TorchServeSettings, model: str, phase: Phase, payloads: Sequence[Payload]
) -> PhaseResult:
    """Send one phase, and watch the workers meanwhile."""
    seen: list[tuple[float, int]] = []
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client_of(where), model, seen, is_over))
    watcher.start()
    try:
        spec = LoadSpec(
            f"{server.inference_url}/predictions/{model}",
            payloads,
            concurrency=512,
            rate=phase.rate,
            duration_s=phase.seconds,
            warmup_s=0.0,
        )
        result: LoadResult = run_load(spec)
    finally:
        is_over.set()
        watcher.join()
    lost = {kind: count for kind, count in result.errors.items() if kind != REFUSED}
    refused = result.errors.get(REFUSED, 0)
    sent = result.num_ok + result.num_errors
    return PhaseResult(phase, sent, result.num_ok, refused, lost, result.p50_ms, result.p99_ms, seen)


def _watch(server: TorchServe, model: str, seen: list[tuple[float, int]], is_over: threading.Event) -> None:
    """Note the ready workers whenever their number changes."""
    started = time.monotonic()
    while not is_over.is_set():
        ready = server.status(model).num_ready
        if not seen or seen[-1][1] != ready:
            seen.append((round(time.monotonic() - started, 1), ready))
        is_over.wait(_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
