"""Blocks of load by wrk, a load generator in C: a sixth of the CPU time that a request costs `ts-handlers bench`."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import BenchError, run
from bench.server import clean_env
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.load.result import LoadResult

SCRIPT = Path(__file__).with_suffix(".lua")

_ERRORS = ("connect", "read", "write", "status", "timeout")
_TIMEOUT_SECONDS = 30
_BLOCK_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WrkLoad:
    """What `bench.load.Load` is, with wrk for a program: one thread, a closed loop, bodies in turn.

    Attributes:
        payloads: What `ts-handlers bench --payloads` takes.
        clients: Requests in flight.
        folder: Where its log and the bodies go.
    """

    payloads: Path
    clients: int
    folder: Path

    def run(self, url: str, seconds: float) -> LoadResult:
        """Load a URL for whole seconds and return what wrk says of it; raises BenchError without wrk."""
        program = find_wrk()
        bodies, index, log = (self.folder / f"wrk.{name}" for name in ("bodies", "index", "log"))
        payloads = read_payloads(self.payloads)
        bodies.write_bytes(b"".join(payload.body for payload in payloads))
        index.write_text("".join(f"{len(payload.body)} {payload.content_type}\n" for payload in payloads))
        options = ["-t1", f"-c{self.clients}", f"-d{max(1, round(seconds))}s", f"--timeout={_TIMEOUT_SECONDS}s"]
        cpu_before = _children_cpu_s()
        printed = run(
            [program, *options, "-s", SCRIPT, url, "--", bodies, index],
            log=log,
            env=clean_env(),
            cwd=self.folder,
            timeout_seconds=seconds + _BLOCK_GRACE_SECONDS,
        )
        client_cpu_s = _children_cpu_s() - cpu_before
        try:
            return read_result(json.loads(printed.splitlines()[-1]), self.clients, client_cpu_s)
        except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"wrk printed no result: {printed[-300:]!r}; see {log}") from error


def find_wrk() -> str:
    """Return the program's path; raises BenchError where there is none."""
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("there is no wrk on PATH: install it (apt-get install wrk), or load with `bench`")
    return program


def read_result(printed: Mapping[str, Any], clients: int, client_cpu_s: float) -> LoadResult:
    """Make a result of the line that wrk.lua prints.

    Its latencies are of every answer, those without 2xx included, and wrk adds what its clients would have sent meanwhile:
    they do not compare with those of `ts-handlers bench`. An answer of 3xx is none of its errors, nor is one that never
    came. wrk knows no first error and no course of time.
    """
    num_answered = int(printed["requests"])
    num_ok = num_answered - int(printed["status"])
    duration_s = printed["duration_us"] / 1e6
    latencies_ms: dict[str, float | None] = {
        f"{name}_ms": printed[f"{name}_us"] / 1000.0 if num_ok else None
        for name in ("mean", "p50", "p90", "p99", "max")
    }
    return LoadResult(
        concurrency=clients,
        rate=None,
        duration_s=duration_s,
        num_ok=num_ok,
        num_answered=num_answered,
        errors={name: int(printed[name]) for name in _ERRORS if printed[name]},
        first_error=None,
        requests_per_second=num_ok / duration_s,
        **latencies_ms,
        client_cpu_s=client_cpu_s,
        num_late=0,
        timeline=(),
    )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
