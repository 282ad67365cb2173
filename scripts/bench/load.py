"""A closed-loop HTTP load generator: N clients, each with one request in flight, over keep-alive connections.

Run it in a process of its own (`python -m bench.load`), so that every server is charged the same for its clients.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.result import LoadResult

TEXT_PLAIN = "text/plain; charset=utf-8"

_PAUSE_AFTER_FAILURE_SECONDS = 0.05


@dataclass(slots=True)
class _Window:
    """Outcomes are kept only while the window is open: after the warm-up, before the last answers come in."""

    is_open: bool = False
    is_over: bool = False
    num_answered: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def record(self, outcome: str, latency_ms: float) -> None:
        self.num_answered += outcome.isdigit()
        if not self.is_open:
            return
        if outcome == "200":
            self.latencies_ms.append(latency_ms)
        else:
            self.errors[outcome] += 1


async def run_load(
    url: str,
    payloads: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    warmup_seconds: float = 0.0,
    timeout_seconds: float = 30.0,
    headers: Mapping[str, str] | None = None,
) -> LoadResult:
    """Post `payloads` in turn, over and over, and return what was seen within the measured window.

    A request counts in the window its answer comes in. Takes at most warm-up + window + `timeout_seconds`.

    Args:
        url: Where to POST.
        payloads: Request bodies; the clients share one cycle through them.
        clients: Requests in flight at any time.
        seconds: Length of the measured window.
        warmup_seconds: Load of the same kind before it, not counted.
        timeout_seconds: When a request is given up; counted as a TimeoutError.
        headers: Request headers; text/plain in UTF-8 unless told.
    """
    if not payloads:
        raise ValueError("no payloads; give at least one request body")
    window = _Window()
    bodies = itertools.cycle(payloads)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=clients),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        headers=headers or {"Content-Type": TEXT_PLAIN},
    ) as session:
        tasks = [asyncio.create_task(_client(session, url, bodies, window)) for _ in range(clients)]
        await asyncio.sleep(warmup_seconds)
        started, cpu_started = time.perf_counter(), time.process_time()
        window.is_open = True
        await asyncio.sleep(seconds)
        window.is_open, window.is_over = False, True
        elapsed, cpu_elapsed = time.perf_counter() - started, time.process_time() - cpu_started
        await asyncio.gather(*tasks)
    return LoadResult.from_samples(
        window.latencies_ms,
        window.errors,
        clients=clients,
        seconds=elapsed,
        num_answered=window.num_answered,
        client_cpu_seconds=cpu_elapsed,
    )


async def _client(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], window: _Window) -> None:
    while not window.is_over:
        started = time.perf_counter()
        try:
            async with session.post(url, data=next(bodies)) as response:
                await response.read()
            outcome = str(response.status)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            outcome = type(error).__name__
        window.record(outcome, (time.perf_counter() - started) * 1000.0)
        if not outcome.isdigit():
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one block and print its result as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--payloads", type=Path, required=True, help="one request body a line")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warmup-seconds", type=float, default=5.0)
    args = parser.parse_args(argv)
    payloads = [line for line in args.payloads.read_bytes().splitlines() if line.strip()]
    result = asyncio.run(
        run_load(args.url, payloads, clients=args.clients, seconds=args.seconds, warmup_seconds=args.warmup_seconds)
    )
    print(json.dumps(result.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
