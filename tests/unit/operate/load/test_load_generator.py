from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import pytest
import trustme
from aiohttp import web

from tests.unit.operate.load.servers import TEXTS, Behaviour, Dropping, Stalling, echo, hanging, load, served, slow
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate.load.generator import LoadSpec, generate_load
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.load.result import LoadResult


def test_a_closed_loop_keeps_so_many_in_flight_and_its_latencies_are_those_of_the_server() -> None:
    in_flight, seen = 0, set()

    async def counting(request: web.Request) -> web.Response:
        nonlocal in_flight
        in_flight += 1
        seen.add(in_flight)
        response = await slow(request)
        in_flight -= 1
        return response

    result = load(counting, concurrency=3)

    assert max(seen) == 3
    assert (result.errors, result.num_late) == ({}, 0)
    assert result.p50_ms is not None
    assert result.p50_ms >= 49.0
    assert 0 < result.requests_per_second <= 3 / 0.049  # three clients, none answered sooner
    assert result.num_answered > result.num_ok  # the warm-up's, too


def test_connections_are_kept_bodies_taken_in_turn_and_headers_sent() -> None:
    peers, bodies, headers = set(), [], set()
    names: set[str] = set()
    large = Payload(bytes(3 * 2**20), "text/plain; charset=utf-8")

    async def recording(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        headers.add((request.headers["Content-Type"], request.headers["X-Team"]))
        names.update(request.headers)
        bodies.append(await request.read())
        return web.Response()

    load(recording, (*TEXTS[:2], large), concurrency=1, headers={"X-Team": "a"})

    assert len(peers) == 1
    assert headers == {("text/plain; charset=utf-8", "a")}
    assert names == {"Host", "Content-Type", "Content-Length", "X-Team", "User-Agent"}, (
        "every header costs a worker time"
    )
    assert bodies[:5] == [b"one", b"one", b"two", large.body, b"one"]  # the first of all only asks who is there


def test_errors_are_counted_by_status_and_are_not_in_the_rate() -> None:
    async def picky(request: web.Request) -> web.Response:
        await asyncio.sleep(0.005)
        status = {"one": 200, "two": 400, "three": 302}[await request.text()]
        return web.Response(status=status, text="because", headers={"Location": str(request.url)})

    result = load(picky, concurrency=1)

    assert set(result.errors) == {"400", "302"}
    assert result.num_ok == pytest.approx(result.errors["400"], abs=1)
    assert result.requests_per_second == pytest.approx(result.num_ok / result.duration_s, rel=0.3)
    assert result.first_error in {"400 because", "302 because"}
    assert sum(point.num_errors for point in result.timeline) == result.num_errors


def test_a_dropped_connection_is_an_error_with_a_pause_in_a_closed_loop() -> None:
    dropping = Dropping()

    result = load(dropping, concurrency=2)

    assert set(result.errors) == {"ServerDisconnectedError"}
    assert dropping.num_requests <= 1 + 2 * (0.5 / 0.05 + 1)


def test_a_server_that_hangs_is_given_up() -> None:
    answered = []

    async def hanging_after_the_first(request: web.Request) -> web.Response:
        answered.append(1)
        return await (echo if len(answered) == 1 else hanging)(request)

    result = load(hanging_after_the_first, timeout_s=0.2)

    assert set(result.errors) == {"TimeoutError"}
    assert result.num_ok == 0
    assert result.num_answered == 0


def test_the_open_loop_reports_a_stall_that_the_closed_loop_hides() -> None:
    options: dict[str, Any] = {"concurrency": 1, "duration_s": 1.5, "warmup_s": 0.0}

    closed = load(Stalling(after_s=0.3, for_s=0.8), **options)
    opened = load(Stalling(after_s=0.3, for_s=0.8), **(options | {"concurrency": 200, "rate": 100.0}))

    assert closed.max_ms is not None
    assert closed.max_ms > 700.0  # one request met the stall, and its one client asked nothing else
    assert closed.p90_ms is not None
    assert closed.p90_ms < 400.0
    assert opened.rate == 100.0
    assert opened.num_ok == pytest.approx(150, abs=1)
    assert opened.p90_ms is not None
    assert opened.p90_ms > 400.0
    assert any(point.num_ok == 0 for point in closed.timeline)
    assert all(point.num_ok > 0 for point in opened.timeline)


def test_an_open_loop_without_room_in_flight_counts_the_wait() -> None:
    result = load(slow, rate=100.0, concurrency=1, duration_s=0.5, warmup_s=0.0)

    assert result.num_ok == pytest.approx(50, abs=1)  # all are sent, after the window too
    assert result.num_late > 40
    assert result.max_ms is not None
    assert result.max_ms > 1000.0
    assert result.requests_per_second <= 2 / 0.05  # what the server did, not what was asked


def test_a_request_that_cannot_be_sent_in_time_is_not_sent() -> None:
    result = load(slow, rate=200.0, concurrency=1, duration_s=0.5, warmup_s=0.0, timeout_s=0.2)

    assert result.errors["NotStarted"] > 0
    assert result.num_ok + result.num_errors == pytest.approx(100, abs=1)
    assert "TimeoutError" not in result.errors  # what is sent has its full time
    assert result.num_answered < 20


def test_progress_reaches_the_end() -> None:
    seconds: list[float] = []

    async def go() -> None:
        async with served(echo) as url:
            await generate_load(
                LoadSpec(url, TEXTS, concurrency=1, duration_s=0.6, warmup_s=0.1), on_progress=seconds.append
            )

    asyncio.run(go())

    assert seconds == sorted(seconds)
    assert len(seconds) >= 2
    assert seconds[-1] >= 0.7


def stopped(behaviour: Behaviour, *, after_s: float, warmup_s: float) -> LoadResult:
    """Load a server for an hour, and cancel that soon."""

    async def go() -> LoadResult:
        async with served(behaviour) as url:
            load = asyncio.ensure_future(generate_load(LoadSpec(url, TEXTS, duration_s=3600.0, warmup_s=warmup_s)))
            asyncio.get_running_loop().call_later(after_s, load.cancel)
            return await load

    return asyncio.run(go())


def test_a_load_that_is_stopped_returns_what_is_known() -> None:
    result = stopped(echo, after_s=0.4, warmup_s=0.0)

    assert 0.1 < result.duration_s < 30.0
    assert result.num_ok > 0
    assert result.requests_per_second == pytest.approx(result.num_ok / result.duration_s)
    assert sum(point.num_ok for point in result.timeline) == result.num_ok


@pytest.mark.parametrize("behaviour", [echo, hanging])
def test_a_load_that_is_stopped_before_it_measures_knows_nothing(behaviour: Behaviour) -> None:
    result = stopped(behaviour, after_s=0.2, warmup_s=60.0)

    assert (result.duration_s, result.num_ok, result.requests_per_second, result.timeline) == (0.0, 0, 0.0, ())


def test_a_mistake_in_the_caller_s_progress_ends_the_load() -> None:
    def fail(_seconds: float) -> None:
        raise ZeroDivisionError

    async def go() -> None:
        async with served(echo) as url:
            await generate_load(LoadSpec(url, TEXTS, duration_s=60.0), on_progress=fail)

    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(go())
    assert time.monotonic() - started < 30.0


def test_a_first_request_without_an_answer_is_a_mistake() -> None:
    with pytest.raises(OperatorError, match=r"within 0\.2 s: is the model loaded"):
        load(hanging, timeout_s=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/x"}, "'ftp://host/x' is no URL"),
        ({"url": "http:///x"}, "is no URL"),
        ({"payloads": ()}, "no payloads"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"duration_s": -1.0}, "duration is -1.0"),
        ({"timeout_s": float("nan")}, "timeout is nan"),
        ({"warmup_s": -1.0}, "warm-up is -1.0"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadSpec(**({"url": "http://127.0.0.1/x", "payloads": TEXTS} | options))


def test_https_is_checked_unless_told() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def go(*, verify_tls: bool) -> LoadResult:
        async with served(echo, ssl_context=context) as url:
            return await generate_load(LoadSpec(url, TEXTS, duration_s=0.3, warmup_s=0.0, verify_tls=verify_tls))

    with pytest.raises(OperatorError, match="certificate verify failed"):
        asyncio.run(go(verify_tls=True))
    assert asyncio.run(go(verify_tls=False)).num_ok > 0
