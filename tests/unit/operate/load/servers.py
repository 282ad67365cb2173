"""Servers named for how they behave, and a load on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from ts_handlers.operate.load.generator import LoadSpec, generate_load
from ts_handlers.operate.load.payloads import TEXT_PLAIN, Payload
from ts_handlers.operate.load.result import LoadResult

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]

TEXTS = tuple(Payload(text.encode(), TEXT_PLAIN) for text in ("one", "two", "three"))


async def echo(request: web.Request) -> web.Response:
    """Answer with the body."""
    return web.Response(body=await request.read())


async def slow(request: web.Request) -> web.Response:
    """Answer after 50 ms."""
    await request.read()
    await asyncio.sleep(0.05)
    return web.Response(text="ok")


async def hanging(request: web.Request) -> web.Response:
    """Answer in ten seconds, if the client is still there."""
    await request.read()
    await asyncio.sleep(10.0)
    return web.Response(text="too late")


async def full(request: web.Request) -> web.Response:
    """Answer 503, as TorchServe with a full queue."""
    await request.read()
    return web.Response(status=503, text='{"code": 503}')


class Dropping:
    """Answers the first request and hangs up on every other."""

    def __init__(self) -> None:
        self.num_requests = 0

    async def __call__(self, request: web.Request) -> web.Response:
        await request.read()
        self.num_requests += 1
        if self.num_requests > 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="ok")


class Stalling:
    """Stops answering for a while, a while after the first request; what came meanwhile is answered at its end."""

    def __init__(self, after_s: float, for_s: float) -> None:
        self._after_s, self._for_s = after_s, for_s
        self._first_s: float | None = None

    async def __call__(self, request: web.Request) -> web.Response:
        await request.read()
        self._first_s = self._first_s or time.perf_counter()
        since_s = time.perf_counter() - self._first_s
        if self._after_s <= since_s < self._after_s + self._for_s:
            await asyncio.sleep(self._after_s + self._for_s - since_s)
        return web.Response(text="ok")


@asynccontextmanager
async def served(behaviour: Behaviour, **site: Any) -> AsyncIterator[str]:
    """Serve one behaviour on a free port of 127.0.0.1."""
    app = web.Application(client_max_size=8 * 2**20)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await behaviour(request)

    app.router.add_post("/predictions/model", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, **site).start()
    scheme = "https" if site else "http"
    try:
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/predictions/model"
    finally:
        await runner.cleanup()


def load(behaviour: Behaviour, payloads: Sequence[Payload] = TEXTS, **options: Any) -> LoadResult:
    """Load a server of that behaviour."""

    async def go() -> LoadResult:
        async with served(behaviour) as url:
            short = {"concurrency": 2, "duration_s": 0.4, "warmup_s": 0.1, "timeout_s": 5.0}
            return await generate_load(LoadSpec(url, payloads, **(short | options)))

    return asyncio.run(go())
