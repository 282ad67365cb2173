"""The limit in process: a handler's hooks and its session on the payloads of the benchmark, without a server.

    python -m bench.limit ARCHIVE PAYLOADS INDEX COUNT

is one of COUNT such processes. It prints "ready", then does a block for each line "SIZE SECONDS" of its input, SIZE payloads
at a time, grouped as the handler would, and prints a line of JSON for it. It ends with its input.

Counted is what no server can spare: decode, transform, padding, session.run. Not counted: codec, metrics, format, JSON.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from bench.process import BenchError, clean_env
from bench.side import Served
from bench.sides import Archive

_ROOT = Path(__file__).resolve().parents[2]
_READY = "ready"
_WARMUP_PAYLOADS = 8


@dataclass(frozen=True, slots=True)
class Limit:
    """A handler in each of some processes, one thread on a CPU of its own.

    Attributes:
        name: Of the side.
        archive: Whose handler.
        payloads: What it is given.
        size: Payloads at a time.
        count: Processes.
    """

    name: str
    archive: Archive
    payloads: Path
    size: int
    count: int

    def prepare(self) -> None:
        """Build the archive."""
        self.archive.make()

    @contextmanager
    def serve(self) -> Iterator[Served]:
        """Start the processes."""
        with running(self.archive.mar, self.payloads, self.count, self.archive.folder / "limit.log") as processes:
            yield Served(os.getpid(), send=partial(block, processes, self.size))


@contextmanager
def running(archive: Path, payloads: Path, count: int, log: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Run `count` processes with a handler each while the block runs."""
    environ = clean_env(
        PYTHONPATH=f"{_ROOT / 'scripts'}:{_ROOT}", TS_HANDLERS_WORKERS=str(count), TS_HANDLERS_THREADS="1"
    )
    processes: list[subprocess.Popen[str]] = []
    try:
        with log.open("wb") as errors:
            for index in range(count):
                command: list[str | Path] = [
                    sys.executable,
                    "-m",
                    "bench.limit",
                    archive,
                    payloads,
                    str(index),
                    str(count),
                ]
                pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
                processes.append(subprocess.Popen(command, env=environ, text=True, **pipes))
        for process in processes:
            if not _line(process, _READY):
                raise BenchError(f"a process of the limit in process ended (code {process.wait()}); see {log}")
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def block(processes: Sequence[subprocess.Popen[str]], size: int, seconds: float) -> Mapping[str, Any]:
    """Do a block in all processes at once; return what `ts-handlers bench` would."""
    for process in processes:
        print(size, seconds, file=_pipe(process.stdin), flush=True)
    lines = [_line(process, "{") for process in processes]
    if not all(lines):
        raise BenchError("a process of the limit in process ended")
    found = [json.loads(line) for line in lines]
    return {
        "requests_per_second": sum(one["num_payloads"] / one["seconds"] for one in found),
        "p50_ms": None,
        "p99_ms": None,
        "num_answered": sum(one["num_payloads"] for one in found),
        "errors": {},
        "more": {name: sum(one[name] for one in found) for name in ("hooks_s", "run_s", "cpu_s", "spread")},
    }


def _line(process: subprocess.Popen[str], prefix: str) -> str:
    """Return the next line with this prefix, for libraries may print others; nothing where the process ends."""
    return next((line for line in _pipe(process.stdout) if line.startswith(prefix)), "")


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise BenchError("the process was started without pipes")
    return stream


class Loop:
    """One process's way through the payloads."""

    def __init__(self, handler: Any, instances: Sequence[Any]) -> None:
        self._handler, self._instances = handler, itertools.cycle(instances)

    def block(self, size: int, seconds: float) -> dict[str, float]:
        """Work for at least so long, and say what was done and what it took."""
        hooks_s, run_s, logs = 0.0, 0.0, []
        started, cpu_started = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) - started < seconds:
            inputs = [item for _ in range(size) for item in self._inputs(next(self._instances))]
            prepared = time.perf_counter()
            self._run(inputs)
            done = time.perf_counter()
            hooks_s, run_s = hooks_s + prepared - now, run_s + done - prepared
            logs.append(math.log(done - now))
        return {
            "num_payloads": size * len(logs),
            "seconds": time.perf_counter() - started,
            "hooks_s": hooks_s,
            "run_s": run_s,
            "cpu_s": time.process_time() - cpu_started,
            "spread": statistics.pstdev(logs),
        }

    def warm_up(self) -> None:
        """Run a few payloads."""
        for _ in range(_WARMUP_PAYLOADS):
            self._run(self._inputs(next(self._instances)))

    def _inputs(self, instance: Any) -> list[Any]:
        return list(self._handler.transform(self._handler.decode(instance)))

    def _run(self, inputs: Sequence[Any]) -> None:
        from ts_handlers.batch import pad_batch

        calls, session = self._handler.calls, self._handler.session
        for plan in calls.plan(session, inputs):
            session.run(pad_batch(inputs, plan, self._handler.pad_values).arrays)


def main(archive: str, payloads: str, index: str, count: str) -> None:
    """Be one of the processes."""
    from ts_handlers.testing import load_archive

    bodies = read_bodies(Path(payloads))
    start = int(index) * len(bodies) // int(count)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(index) % len(cpus)]})
    loop = Loop(load_archive(Path(archive)), bodies[start:] + bodies[:start])
    loop.warm_up()
    print(_READY, flush=True)
    for line in sys.stdin:
        size, seconds = line.split()
        print(json.dumps(loop.block(int(size), float(seconds))), flush=True)


def read_bodies(payloads: Path) -> list[Any]:
    """Return what `ts-handlers bench` would send, as a handler decodes it: the files of a folder, or the lines of a text."""
    if payloads.is_dir():
        return [file.read_bytes() for file in sorted(payloads.iterdir())]
    return [line for line in payloads.read_text(encoding="utf-8").split("\n") if line.strip()]


if __name__ == "__main__":
    main(*sys.argv[1:])
