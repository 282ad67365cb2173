"""The limit in process: a handler's hooks and its session on the payloads of the benchmark, without a server.

Counted is what no server can spare: decode, transform, padding, session.run. Not counted: codec, metrics, format, JSON.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.ours import Archive
from bench.process import BenchError, clean_env
from bench.side import Served

_WARMUP_SECONDS = 0.5

_state: tuple[Any, Iterator[Any]]
"""Of one of the processes: its handler, and the payloads in turn."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A handler in each of some processes, one thread on a CPU of its own.

    Attributes:
        name: Of the side.
        archive: Whose handler.
        payloads: What it is given.
        size: Payloads at a time, grouped as the handler would.
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
        with running(self.archive.mar, self.payloads, self.count) as processes:
            yield Served(os.getpid(), send=partial(block, processes, self.size))


@contextmanager
def running(archive: Path, payloads: Path, count: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Run `count` processes with a handler each while the block runs.

    Raises:
        BenchError: One of them ends.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ProcessPoolExecutor(1, spawn, _start, (archive, payloads, index, count)))
            for index in range(count)
        ]
        block(processes, 1, _WARMUP_SECONDS)
        yield processes


def block(processes: Sequence[ProcessPoolExecutor], size: int, seconds: float) -> Mapping[str, Any]:
    """Do a block in all processes at once; return what `ts-handlers bench` would."""
    try:
        found = [future.result() for future in [process.submit(_work, size, seconds) for process in processes]]
    except BrokenProcessPool as error:
        raise BenchError(f"a process of the limit in process ended, for the reason above: {error}") from error
    return {
        "requests_per_second": sum(one["num_payloads"] / one["seconds"] for one in found),
        "p50_ms": None,
        "p99_ms": None,
        "num_answered": sum(one["num_payloads"] for one in found),
        "errors": {},
        "more": {name: sum(one[name] for one in found) for name in ("hooks_s", "run_s", "cpu_s", "spread")},
    }


def _start(archive: Path, payloads: Path, index: int, count: int) -> None:
    """Become the process of an index: on a CPU of its own, from another payload on than the others."""
    global _state  # what an executor's initializer leaves for its calls
    os.environ.clear()
    os.environ.update(clean_env(TS_HANDLERS_WORKERS=str(count), TS_HANDLERS_THREADS="1"))
    from ts_handlers.testing import load_archive

    if payloads.is_dir():
        bodies: list[Any] = [file.read_bytes() for file in sorted(payloads.iterdir())]
    else:
        bodies = [line for line in payloads.read_text(encoding="utf-8").split("\n") if line.strip()]
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[index % len(cpus)]})
    start = index * len(bodies) // count
    _state = load_archive(archive), itertools.cycle(bodies[start:] + bodies[:start])


def _work(size: int, seconds: float) -> dict[str, float]:
    """Work for at least so long, and say what was done and what it took."""
    from ts_handlers.batching.padding import pad_batch

    handler, bodies = _state
    hooks_s, run_s, logs = 0.0, 0.0, list[float]()
    started, cpu_started = time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) - started < seconds:
        inputs = [item for body in itertools.islice(bodies, size) for item in handler.transform(handler.decode(body))]
        prepared = time.perf_counter()
        for plan in handler.calls.plan(handler.session, inputs):
            handler.session.run(pad_batch(inputs, plan, handler.pad_values).arrays)
        done = time.perf_counter()
        hooks_s, run_s = hooks_s + prepared - now, run_s + done - prepared
        logs.append(math.log(done - now))
    return {
        "num_payloads": size * len(logs),
        "seconds": time.perf_counter() - started,
        "hooks_s": hooks_s,
        "run_s": run_s,
        "cpu_s": time.process_time() - cpu_started,
        "spread": statistics.pstdev(logs) if logs else 0.0,
    }
