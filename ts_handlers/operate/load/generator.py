"""Load on an HTTP server: clients that post payloads in turn, as fast as they are answered or at a constant rate."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.load.result import LoadResult, Samples
from ts_handlers.optional import import_optional

if TYPE_CHECKING:
    from aiohttp import ClientSession

PAUSE_AFTER_FAILURE_S = 0.05
"""A closed loop waits so long after a connection that failed: it would spin on a server that is gone."""

NOT_STARTED = "NotStarted"
"""Error name of a request that no client was free for within its timeout."""

_PROGRESS_S = 0.25

_UNASKED = ("Accept", "Accept-Encoding")
"""Headers that aiohttp would add: a server need not compress, and TorchServe hands every header on to its workers."""

_EXCERPT_BYTES = 300
_STREAMED_FROM_BYTES = 2**20

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
    return run_loop(lambda: generate_load(spec, on_progress=on_progress))


def run_loop(load: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a load in uvloop's event loop: of asyncio's own a request takes a third more of the CPU that the server needs.

    Raises:
        RuntimeUnavailableError: uvloop is not installed.
    """
    uvloop: Any = import_optional("uvloop", "load is generated in uvloop's event loop", extra="operate")
    result: T = uvloop.run(load())
    return result


async def generate_load(spec: LoadSpec, *, on_progress: Callable[[float], None] | None = None) -> LoadResult:
    """Send one request to see that something answers, then the warm-up, then what is measured.

    Takes at most `warmup_s` + `duration_s` + twice `timeout_s`, and a first request. A task of it that is cancelled
    ends at once, and its result is what is known by then.

    Args:
        spec: The load.
        on_progress: Called several times a second with the seconds since the start of the warm-up.

    Raises:
        OperatorError: Nothing answers at the start.
    """
    samples = Samples(0.0, 0.0)
    with suppress(asyncio.CancelledError):
        async with _open_session(spec) as session:
            await _check_answers(session, spec)
            begin_s = time.perf_counter()
            end_s = begin_s + spec.warmup_s + spec.duration_s
            samples = Samples(begin_s + spec.warmup_s, end_s)
            due_times_s = closed_loop(end_s) if spec.rate is None else open_loop(begin_s, end_s, spec.rate)
            payloads = cycle(spec.payloads)
            clients = [_client(session, spec, due_times_s, payloads, samples) for _ in range(spec.concurrency)]
            await asyncio.gather(_watch(samples, begin_s, on_progress), *clients)
    return samples.summarize(concurrency=spec.concurrency, rate=spec.rate)


def closed_loop(end_s: float, clock: Callable[[], float] = time.perf_counter) -> Iterator[float]:
    """Yield the time the next request is due: now, whenever a client is free; a slow server is asked less."""
    while (now_s := clock()) < end_s:
        yield now_s


def open_loop(start_s: float, end_s: float, rate: float) -> Iterator[float]:
    """Yield the time the next request is due: at a constant rate, whatever the server does.

    A client that is free takes the earliest request that nobody has taken; while all are busy, what is due waits, and
    its latency counts from when it was due. So a server that stalls is charged for every request of that time, not for
    one a client ("coordinated omission").
    """
    for number in count():
        due_s = start_s + number / rate
        if due_s >= end_s:
            return
        yield due_s


async def _client(
    session: ClientSession,
    spec: LoadSpec,
    due_times_s: Iterator[float],
    payloads: Iterator[Payload],
    samples: Samples,
) -> None:
    failures = _failures()
    for due_s in due_times_s:  # all clients take from the same times
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        sent_s = time.perf_counter()
        status, error = None, NOT_STARTED
        if sent_s - due_s < spec.timeout_s:
            try:
                status, body = await _post(session, spec, next(payloads))
                error = "" if 200 <= status < 300 else body[:_EXCERPT_BYTES].decode("utf-8", "replace")
            except failures as failure:
                error = type(failure).__name__
        samples.record(due_s, sent_s, time.perf_counter(), status, error)
        if status is None and spec.rate is None:
            await asyncio.sleep(PAUSE_AFTER_FAILURE_S)


async def _watch(samples: Samples, begin_s: float, on_progress: Callable[[float], None] | None) -> None:
    """Report progress, and close the window at its end or when the load is cancelled within it."""

    async def report_until(time_s: float) -> None:
        while (left_s := time_s - time.perf_counter()) > 0:
            await asyncio.sleep(min(left_s, _PROGRESS_S))
            if on_progress is not None:
                on_progress(time.perf_counter() - begin_s)

    await report_until(samples.start_s)
    cpu_s = time.process_time()
    try:
        await report_until(samples.end_s)
    finally:
        samples.close(time.perf_counter(), time.process_time() - cpu_s)


def _open_session(spec: LoadSpec) -> ClientSession:
    """Open a session that keeps its connections and adds little of its own: no cookies, no proxies, a User-Agent.

    Raises:
        RuntimeUnavailableError: aiohttp is not installed.
    """
    aiohttp = _import_aiohttp()
    session: ClientSession = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=spec.verify_tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=spec.headers,
        skip_auto_headers=_UNASKED,
        timeout=aiohttp.ClientTimeout(total=spec.timeout_s),
    )
    return session


async def _check_answers(session: ClientSession, spec: LoadSpec) -> None:
    """Check that something answers at all, with any status.

    Raises:
        OperatorError: Nothing does.
    """
    try:
        await _post(session, spec, spec.payloads[0])
    except asyncio.TimeoutError as error:
        raise OperatorError(
            f"{spec.url} did not answer a first request within {spec.timeout_s:g} s: is the model loaded? "
            "A longer --timeout waits longer"
        ) from error
    except _failures() as error:
        raise OperatorError(
            f"nothing answers at {spec.url} ({type(error).__name__}: {error}): is the server up, and the address right?"
        ) from error


async def _post(session: ClientSession, spec: LoadSpec, payload: Payload) -> tuple[int, bytes]:
    async with session.post(
        spec.url,
        data=payload.body if len(payload.body) < _STREAMED_FROM_BYTES else io.BytesIO(payload.body),
        headers={"Content-Type": payload.content_type},
        allow_redirects=False,  # a redirect would turn the POST into a GET of another page
    ) as response:
        return response.status, await response.read()


def _failures() -> tuple[type[Exception], ...]:
    """Return what a request without an answer raises."""
    return (asyncio.TimeoutError, _import_aiohttp().ClientError, OSError)


def _import_aiohttp() -> ModuleType:
    return import_optional("aiohttp", "load is generated with aiohttp", extra="operate")
