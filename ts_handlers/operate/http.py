"""One HTTP request with an answer in time, or an error that says what was wrong."""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ts_handlers.config.reading import parse_json
from ts_handlers.errors import OperatorError


class NoAnswerError(OperatorError):
    """Nobody answers, not in time, or not in HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: Its status.
        body: Its body.
    """

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the parsed body.

        Raises:
            NoAnswerError: It is no JSON.
        """
        try:
            return parse_json(self.body or b"null", any_number=True)
        except ValueError as error:
            raise NoAnswerError(f"status {self.status} with a body that is no JSON: {self.body[:80]!r}") from error

    def error(self) -> tuple[str, str]:
        """Return the class of error and the message that a JSON error body has; else "" and the body's beginning."""
        try:
            said = parse_json(self.body, any_number=True)
            return str(said.get("type", "")), " ".join(str(said["message"]).split())
        except (ValueError, KeyError, TypeError, AttributeError):
            return "", self.body[:200].decode("utf-8", "replace").strip() or "no body"


def send(
    method: str,
    url: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request on a connection of its own, past any proxy.

    Raises:
        NoAnswerError: There was no answer: refused, timed out, broken off, or a certificate that is not trusted.
    """
    parts = urllib.parse.urlsplit(url)
    host, port = str(parts.hostname), parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except TimeoutError as error:
        raise NoAnswerError(f"no answer of {parts.scheme}://{parts.netloc} within {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswerError(f"no answer of {parts.scheme}://{parts.netloc}: {reason}") from error
    finally:
        connection.close()
