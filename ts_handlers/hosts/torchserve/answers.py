"""Answers through TorchServe: to describe and explain requests, and the status, type and headers of every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ts_handlers.errors import PayloadTooLargeError, UnsupportedRequestError
from ts_handlers.hosts.torchserve.hold import describe_worker, hold_if_asked
from ts_handlers.requests.response import Answer, encode_json


def describe_answer(headers: Mapping[str, Any], describe: Callable[[], dict[str, Any]]) -> Answer | None:
    """Return the answer to a describe request; None for any other.

    Raises:
        UnsupportedRequestError: 501, it is an explain request.
    """
    if headers.get("describe") == "True":
        hold_if_asked(headers)
        return Answer(encode_json({**describe(), **describe_worker()}))
    if headers.get("explain") == "True":
        raise UnsupportedRequestError("this model gives predictions, not explanations; use /predictions")
    return None


def check_size(answer: Answer, max_bytes: int) -> None:
    """Refuse an answer that the frontend does not take: it would end the worker, with the whole batch.

    Raises:
        PayloadTooLargeError: 413, it has more bytes.
    """
    if len(answer.body) > max_bytes:
        raise PayloadTooLargeError(
            f"the answer has {len(answer.body)} bytes, and this server sends {max_bytes} at most: ask for less, or raise "
            "max_response_size",
            code="response_too_large",
        )


def send(context: Any, index: int, answer: Answer) -> bytes:
    """Set the content type and the headers of one row; return its body."""
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
    return answer.body
