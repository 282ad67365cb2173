"""Load on an HTTP server: clients that post payloads in turn, as fast as they are answered or at a constant rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.load.samples import Samples
from ts_handlers.operate.load.schedule import ClosedLoop, OpenLoop, Schedule
from ts_handlers.operate.load.sender import Sender, open_session
from ts_handlers.optional import import_optional

_PROGRESS_S = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A block of load.

    Attributes:
        url: Where to POST.
        payloads: Request bodies; sent in turn, over and over.
        concurrency: Requests in flight. A closed loop (no `rate`) keeps so many; an open loop has at most so many, so
            give it room there: rate x the longest latency worth measuring.
        rate: Requests per second, started on schedule whatever the server does; None for a closed loop.
        duration_s: Length of the measured window, in seconds.
        warmup_s: Load of the same kind before it, in seconds, not measured.
        timeout_s: Seconds after which a request in flight is given up; in an open loop also how long one that is due
            waits for room in flight.
        headers: Headers of every request; Content-Type is the payload's.
        verify_tls: Whether the certificate of an https server must be one that this machine trusts.
    """

    url: str
    payloads: Sequence[Payload]
    concurrency: int = 16
    rate: float | None = None
    duration_s: float = 20.0
    warmup_s: float = 5.0
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    verify_tls: bool = True

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in {"http", "https"} or not urlsplit(self.url).hostname:
            raise ConfigError(
                f"{self.url!r} is no URL to send load to: give one like http://127.0.0.1:8080/predictions/M"
            )
        if not self.payloads:
            raise ConfigError("there are no payloads to send: give at least one request body")
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}: give 1 or more requests in flight")
        if self.warmup_s < 0:
            raise ConfigError(f"the warm-up is {self.warmup_s} s: give 0 or more")
        for name, value in (("rate", self.rate), ("duration", self.duration_s), ("timeout", self.timeout_s)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"the {name} is {value}: give a number above 0")


def run_load(spec: LoadSpec, *, on_progress: Callable[[float], None] | None = None) -> LoadResult:
    """Run `generate_load` to its end from a program that is not asynchronous."""
    return run_loop(generate_load(spec, on_progress=on_progress))


def run_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a load in uvloop's event loop: of asyncio's own a request takes a third more of the CPU that the server needs.

    Raises:
        RuntimeUnavailableError: uvloop is not installed.
    """
    try:
        uvloop: Any = import_optional("uvloop", "load is generated in uvloop's event loop", extra="operate")
    except RuntimeUnavailableError:
        coroutine.close()
        raise
    result: T = uvloop.run(coroutine)
    return result


async def generate_load(
    spec: LoadSpec, *, on_progress: Callable[[float], None] | None = None, stop: asyncio.Event | None = None
) -> LoadResult:
    """Send one request to see that something answers, then the warm-up, then what is measured.

    Takes at most `warmup_s` + `duration_s` + twice `timeout_s`, and a first request.

    Args:
        spec: The load.
        on_progress: Called several times a second with the seconds since the start of the warm-up.
        stop: Ends the load when it is set: the result is what is known by then.

    Raises:
        OperatorError: Nothing answers at the start.
    """
    stop = stop or asyncio.Event()
    async with open_session(spec.headers, verify_tls=spec.verify_tls) as session:
        sender = Sender(session, spec.url, spec.timeout_s)
        await _until(stop, sender.check(spec.payloads[0]))
        begin_s = time.perf_counter()
        start_s = begin_s + spec.warmup_s
        samples = Samples(start_s, start_s + spec.duration_s)
        schedule: Schedule = ClosedLoop(samples.end_s)
        if spec.rate is not None:
            schedule = OpenLoop(begin_s, samples.end_s, spec.rate)
        payloads = cycle(spec.payloads)
        clients = [_client(schedule, sender, payloads, samples) for _ in range(spec.concurrency)]
        await _until(stop, _all([_watch(samples, begin_s, on_progress or _ignore), *clients]))
    return samples.summarize(concurrency=spec.concurrency, rate=spec.rate)


async def _client(schedule: Schedule, sender: Sender, payloads: Iterator[Payload], samples: Samples) -> None:
    while (due_s := schedule.next_due_s()) is not None:
        await _sleep_until(due_s)
        outcome = await sender.post(next(payloads), due_s)
        samples.record(outcome)
        if outcome.status is None:
            await asyncio.sleep(schedule.pause_after_failure_s)


async def _watch(samples: Samples, begin_s: float, on_progress: Callable[[float], None]) -> None:
    """Report progress, and close the window at its end or when the load is cancelled within it."""
    end_s = samples.end_s
    await _report_until(samples.start_s, begin_s, on_progress)
    cpu_s = time.process_time()
    try:
        await _report_until(end_s, begin_s, on_progress)
    finally:
        samples.close(time.perf_counter(), time.process_time() - cpu_s)


async def _report_until(time_s: float, begin_s: float, on_progress: Callable[[float], None]) -> None:
    while (left_s := time_s - time.perf_counter()) > 0:
        await asyncio.sleep(min(left_s, _PROGRESS_S))
        on_progress(time.perf_counter() - begin_s)


async def _sleep_until(time_s: float) -> None:
    left_s = time_s - time.perf_counter()
    if left_s > 0:
        await asyncio.sleep(left_s)


async def _all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; the first that fails, or a cancellation, ends the others."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until `stop` is set."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await _cancel([working, stopping])


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ignore(_seconds: float) -> None:
    """Show no progress."""
