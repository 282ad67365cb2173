"""The limit in process: a handler's hooks and its session on the payloads of the benchmark, without a server.

    python -m bench.inprocess MODEL_DIR PAYLOADS INDEX COUNT

is one of COUNT such processes. It prints "ready", then does a block for each line "MODE SECONDS" of its input (one: a
payload a call; groups: 16 payloads at a time, grouped as the handler would) and prints a line of JSON for it. It ends
with its input.

Counted is what no server can spare: decode, transform, padding, session.run. Not counted: codec, metrics, format, JSON.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.attribution import InProcessBlock
from bench.process import BenchError
from bench.server import clean_env
from ts_handlers.batch import pad_batch
from ts_handlers.cpu import THREADS_ENV, WORKERS_ENV
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.testing import load_handler

MODES = ("one", "groups")
GROUP = 16
"""As many for each of two processes as the 32 clients of the benchmark have in flight: more could not wait at a time."""

READY = "ready"

_WARMUP_PAYLOADS = 8


class InProcess:
    """`count` processes with a handler each; a context manager that ends them."""

    def __init__(self, model_dir: Path, payloads: Path, count: int, *, log: Path) -> None:
        self._model_dir, self._payloads, self._count, self._log = model_dir, payloads, count, log
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> InProcess:  # noqa: PYI034  # typing.Self needs Python 3.11
        environ = clean_env(PYTHONPATH=str(Path(__file__).resolve().parents[1]))
        environ |= {WORKERS_ENV: str(self._count), THREADS_ENV: "1"}
        try:
            with self._log.open("wb") as log:
                for index in range(self._count):
                    arguments = [str(self._model_dir), str(self._payloads), str(index), str(self._count)]
                    self._processes.append(
                        subprocess.Popen(
                            [sys.executable, "-m", "bench.inprocess", *arguments],
                            stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE,
                            stderr=log,
                            env=environ,
                            text=True,
                        )
                    )
            for process in self._processes:
                self._read(process, READY)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def block(self, mode: str, seconds: float) -> InProcessBlock:
        """Do a block in all processes at once."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(f"{mode} {seconds}\n")
                process.stdin.flush()
        results = [json.loads(self._read(process, "{")) for process in self._processes]
        return InProcessBlock(
            mode=mode,
            num_payloads=sum(result["num_payloads"] for result in results),
            payloads_per_second=sum(result["num_payloads"] / result["seconds"] for result in results),
            **{name: sum(result[name] for result in results) for name in ("hooks_s", "run_s", "cpu_s")},
        )

    def _read(self, process: subprocess.Popen[str], prefix: str) -> str:
        """Return the next line with this prefix; libraries may print others."""
        for line in process.stdout or ():
            if line.startswith(prefix):
                return line
        raise BenchError(f"a process of the limit in process ended (code {process.wait()}); see {self._log}")


class Loop:
    """One process's way through the payloads."""

    def __init__(self, handler: Any, instances: Sequence[Any]) -> None:
        self._handler = handler
        self._instances: Iterator[Any] = itertools.cycle(instances)

    def block(self, mode: str, seconds: float) -> dict[str, float]:
        """Work for at least so long, and say what was done and what it took."""
        size = GROUP if mode == "groups" else 1
        num_payloads, hooks_s, run_s = 0, 0.0, 0.0
        started, cpu_started = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) - started < seconds:
            inputs = [item for _ in range(size) for item in self._inputs(next(self._instances))]
            prepared = time.perf_counter()
            self._run(inputs)
            hooks_s, run_s = hooks_s + prepared - now, run_s + time.perf_counter() - prepared
            num_payloads += size
        return {
            "num_payloads": num_payloads,
            "seconds": time.perf_counter() - started,
            "hooks_s": hooks_s,
            "run_s": run_s,
            "cpu_s": time.process_time() - cpu_started,
        }

    def warm_up(self) -> None:
        """Run a few payloads."""
        for _ in range(_WARMUP_PAYLOADS):
            self._run(self._inputs(next(self._instances)))

    def _inputs(self, instance: Any) -> list[Any]:
        return list(self._handler.transform(self._handler.decode(instance)))

    def _run(self, inputs: Sequence[Any]) -> None:
        calls, session = self._handler.calls, self._handler.session
        for plan in calls.plan(session, inputs):
            session.run(pad_batch(inputs, plan, self._handler.pad_values).arrays)


def load_archive(model_dir: Path) -> Any:
    """Initialize the handler of an unpacked archive, found as TorchServe finds it: the one class its file defines.

    Raises:
        BenchError: It defines none, or several.
    """
    manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    sys.path.insert(0, str(model_dir))
    module = importlib.import_module(Path(manifest["model"]["handler"]).stem)
    classes = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    if len(classes) != 1:
        raise BenchError(f"{module.__name__} defines {len(classes)} classes; a handler file must define exactly one")
    return load_handler(classes[0], model_dir)


def main(arguments: Sequence[str]) -> int:
    """Be one of the processes."""
    model_dir, payloads, index, count = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), int(arguments[3])
    bodies = [
        payload.body.decode("utf-8") if payload.content_type.startswith("text/") else payload.body
        for payload in read_payloads(payloads)
    ]
    start = index * len(bodies) // count
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[index % len(cpus)]})
    loop = Loop(load_archive(model_dir), bodies[start:] + bodies[:start])
    loop.warm_up()
    print(READY, flush=True)
    for line in sys.stdin:
        mode, _, seconds = line.partition(" ")
        print(json.dumps(loop.block(mode, float(seconds))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
