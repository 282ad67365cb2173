"""One HTTP request of a load, by aiohttp, which is imported when the first load starts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from ts_handlers.errors import OperatorError
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.optional import import_optional

if TYPE_CHECKING:
    from aiohttp import ClientSession

_UNASKED = ("Accept", "Accept-Encoding")
"""Headers that aiohttp would add: a server need not compress, and TorchServe hands every header on to its workers."""

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
        timeout_s: How long an answer may take.
    """

    def __init__(self, session: ClientSession, url: str, timeout_s: float) -> None:
        aiohttp = _import_aiohttp()
        self._session = session
        self._url = url
        self._timeout_s = timeout_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._failures = (aiohttp.ClientError, OSError)

    async def post(self, payload: Payload) -> tuple[int | None, str]:
        """Return the status (None without an answer) and what the error was: its name, or the start of its body."""
        try:
            status, body = await self._answer(payload)
        except asyncio.TimeoutError:
            return None, "TimeoutError"
        except self._failures as failure:
            return None, type(failure).__name__
        return status, "" if 200 <= status < 300 else body[:_EXCERPT_BYTES].decode("utf-8", "replace")

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
        except self._failures as error:
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
