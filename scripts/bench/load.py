"""Blocks of load: `ts-handlers bench` in a process of its own, so that every server is charged the same for its clients."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from bench.process import BenchError, run
from bench.report import Block
from bench.server import TS_HANDLERS, Server, clean_env
from ts_handlers.operate.bench import EXIT_NONE_SUCCEEDED
from ts_handlers.operate.load.result import LoadResult, describe_errors

_BLOCK_GRACE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load of every block: the same program, bodies and clients for each side.

    Attributes:
        payloads: What `ts-handlers bench --payloads` takes.
        clients: Requests in flight, closed loop.
        warmup_seconds: Load before each block, not measured.
        folder: Where its log goes.
    """

    payloads: Path
    clients: int
    warmup_seconds: float
    folder: Path

    def block(self, server: Server, side: str, number: int, seconds: float, idle: Server | None = None) -> Block:
        """Load `server` for a warm-up and then `seconds`, and say so."""
        label = f"round {number}, {side}" if number else f"search, {side}"
        print(f"{label}: {self.warmup_seconds:g} s warm-up, {seconds:g} s ...", flush=True)
        started = time.monotonic()
        before, idle_before = server.cpu_seconds(), idle.cpu_seconds() if idle else 0.0
        result = self.run(server.url, seconds)
        block = Block(
            round=number,
            side=side,
            result=result,
            wall_seconds=time.monotonic() - started,
            server_cpu_seconds=server.cpu_seconds() - before,
            idle_cpu_seconds=idle.cpu_seconds() - idle_before if idle else None,
        )
        latencies = f"p50 {result.p50_ms or 0.0:.0f} ms, p99 {result.p99_ms or 0.0:.0f} ms"
        errors = describe_errors(result.errors)
        print(f"{label}: {result.requests_per_second:.1f} req/s, {latencies}, errors {errors}", flush=True)
        return block

    def run(self, url: str, seconds: float) -> LoadResult:
        """Load a URL and return what was measured; raises BenchError if nothing answers there."""
        log = self.folder / "load.log"
        command: list[str | Path] = [
            *(*TS_HANDLERS, "bench", url, "--payloads", self.payloads, "--concurrency", str(self.clients)),
            *("--duration", str(seconds), "--warmup", str(self.warmup_seconds), "--json"),
        ]
        printed = run(
            command,
            log=log,
            env=clean_env(),
            cwd=self.folder,
            timeout_seconds=self.warmup_seconds + seconds + _BLOCK_GRACE_SECONDS,
            good_codes=(0, EXIT_NONE_SUCCEEDED),
        )
        try:
            return LoadResult.from_json(json.loads(printed.splitlines()[-1])["result"])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"the load generator printed no result: {printed[-300:]!r}; see {log}") from error
