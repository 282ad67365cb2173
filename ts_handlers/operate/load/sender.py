"""One HTTP request of a load, by aiohttp, which is imported when the first load starts."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from ts_handlers.errors import OperatorError
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.load.samples import Outcome
from ts_handlers.optional import import_optional

if TYPE_CHECKING:
    from aiohttp import ClientSession

NOT_STARTED = "NotStarted"
"""Error name of a request that no client was free for within its timeout."""

_UNASKED = ("Accept", "Accept-Encoding")
"""Headers that aiohttp would add: a server need not compress, and TorchServe hands every header on to its workers."""

_TIMEOUT = "TimeoutError"
_EXCERPT_BYTES = 300
_STREAMED_FROM_BYTES = 2**20


def open_session(headers: Mapping[str, str], *, verify_tls: bool) -> ClientSession:
    """Open a session that keeps its connections and adds little of its own: no cookies, no proxies, a User-Agent.

    Raises:
        RuntimeUnavailableError: aiohttp is not installed.
    """
    aiohttp = _import_aiohttp()
    session: ClientSession = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=verify_tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        skip_auto_headers=_UNASKED,
    )
    return session


class Sender:
    """Posts payloads to one URL.

    Args:
        session: The session.
        url: Where to POST.
        timeout_s: How long a request may wait to be sent, and how long its answer may take.
    """

    def __init__(self, session: ClientSession, url: str, timeout_s: float) -> None:
        self._aiohttp = _import_aiohttp()
        self._session = session
        self._url = url
        self._timeout_s = timeout_s
        self._timeout = self._aiohttp.ClientTimeout(total=timeout_s)

    async def post(self, payload: Payload, due_s: float) -> Outcome:
        """Post a payload that was due at a time of time.perf_counter, and return how it ended."""
        sent_s = time.perf_counter()
        if sent_s - due_s >= self._timeout_s:
            return Outcome(due_s, sent_s, sent_s, None, NOT_STARTED)
        status: int | None = None
        error = ""
        try:
            status, body = await self._answer(payload)
            if not 200 <= status < 300:
                error = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
        except asyncio.TimeoutError:
            error = _TIMEOUT
        except (self._aiohttp.ClientError, OSError) as failure:
            error = type(failure).__name__
        return Outcome(due_s, sent_s, time.perf_counter(), status, error)

    async def check(self, payload: Payload) -> None:
        """Check that something answers at all, with any status.

        Raises:
            OperatorError: Nothing does.
        """
        try:
            await self._answer(payload)
        except asyncio.TimeoutError as error:
            raise OperatorError(
                f"{self._url} did not answer a first request within {self._timeout_s:g} s: is the model loaded? "
                "A longer --timeout waits longer"
            ) from error
        except (self._aiohttp.ClientError, OSError) as error:
            raise OperatorError(
                f"nothing answers at {self._url} ({type(error).__name__}: {error}): is the server up, and the address "
                "right?"
            ) from error

    async def _answer(self, payload: Payload) -> tuple[int, bytes]:
        body = payload.body if len(payload.body) < _STREAMED_FROM_BYTES else io.BytesIO(payload.body)
        async with self._session.post(
            self._url,
            data=body,
            headers={"Content-Type": payload.content_type},
            timeout=self._timeout,
            allow_redirects=False,  # a redirect would turn the POST into a GET of another page
        ) as response:
            return response.status, await response.read()


def _import_aiohttp() -> ModuleType:
    return import_optional("aiohttp", "load is generated with aiohttp", extra="operate")
