from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.load import TEXT_PLAIN, main, run_load
from bench.result import LoadResult

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/predictions/model", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/predictions/model"
    finally:
        await runner.cleanup()


def load(handler: Handler, *, clients: int = 2, seconds: float = 0.4, timeout_seconds: float = 5.0) -> LoadResult:
    async def go() -> LoadResult:
        async with served(handler) as url:
            return await run_load(
                url,
                [b"one", b"two", b"three"],
                clients=clients,
                seconds=seconds,
                warmup_seconds=0.1,
                timeout_seconds=timeout_seconds,
            )

    return asyncio.run(go())


def test_latency_and_rate_are_those_of_the_server() -> None:
    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.05)
        return web.Response(text="ok")

    result = load(slow, clients=4, seconds=1.0)
    assert result.errors == {}
    assert result.p50_ms is not None
    assert 49.0 < result.p50_ms < 500.0
    assert result.num_ok <= 4 * 1.0 / 0.05 + 4
    assert result.seconds == pytest.approx(1.0, abs=0.5)
    assert result.num_answered > result.num_ok


def test_every_client_has_one_request_in_flight() -> None:
    in_flight, seen = 0, set()

    async def counting(request: web.Request) -> web.Response:
        nonlocal in_flight
        in_flight += 1
        seen.add(in_flight)
        await asyncio.sleep(0.02)
        in_flight -= 1
        return web.Response(text="ok")

    load(counting, clients=3)
    assert max(seen) == 3


def test_connections_are_kept_alive_and_bodies_taken_in_turn() -> None:
    peers, bodies, kinds = set(), [], set()

    async def recording(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        kinds.add(request.headers["Content-Type"])
        bodies.append(await request.text())
        return web.Response(text="ok")

    load(recording, clients=1)
    assert len(peers) == 1
    assert kinds == {TEXT_PLAIN}
    assert bodies[:5] == ["one", "two", "three", "one", "two"]


def test_errors_are_counted_by_status_and_not_in_the_rate() -> None:
    async def picky(request: web.Request) -> web.Response:
        await asyncio.sleep(0.005)
        status = {"one": 200, "two": 400, "three": 503}[await request.text()]
        return web.Response(status=status)

    result = load(picky, clients=1)
    assert set(result.errors) == {"400", "503"}
    assert result.num_ok == pytest.approx(result.errors["400"], abs=1)
    assert result.num_ok == pytest.approx(result.errors["503"], abs=1)


def test_a_server_that_hangs_is_given_up() -> None:
    async def hanging(request: web.Request) -> web.Response:
        await asyncio.sleep(2.0)
        return web.Response(text="too late")

    result = load(hanging, seconds=0.5, timeout_seconds=0.2)
    assert result.num_ok == 0
    assert result.p50_ms is None
    assert set(result.errors) == {"TimeoutError"} or all("Timeout" in name for name in result.errors)


def test_a_server_that_is_not_there_is_an_error_and_no_busy_loop() -> None:
    result = asyncio.run(run_load("http://127.0.0.1:1/", [b"text"], clients=2, seconds=0.3))
    assert result.num_ok == 0
    assert 0 < result.num_errors < 50
    assert result.num_answered == 0


def test_no_payloads_is_refused() -> None:
    with pytest.raises(ValueError, match="no payloads"):
        asyncio.run(run_load("http://127.0.0.1:1/", [], clients=1, seconds=0.1))


def test_the_program_prints_its_result_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payloads = tmp_path / "payloads.txt"
    payloads.write_text("one\n\ntwo\n")
    arguments = ["http://127.0.0.1:1/", "--payloads", str(payloads), "--clients", "1"]
    assert main([*arguments, "--seconds", "0.1", "--warmup-seconds", "0"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert LoadResult.from_json(json.loads(line)).clients == 1
