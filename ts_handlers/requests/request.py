"""One request, understood: what is to be predicted, and the form the answer is to have."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ts_handlers.errors import PayloadTooLargeError

InstanceType = Literal["text", "image"]
"""What the bytes of a request are."""


class Protocol(enum.Enum):
    """The form of a request, and so of its response."""

    PLAIN = "plain"
    KSERVE_V1 = "kserve-v1"
    KSERVE_V2 = "kserve-v2"


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a batch, understood.

    Attributes:
        instances: What is to be predicted: str, bytes, mappings, lists or arrays, as the client sent them.
        protocol: Its form.
        is_many: Whether a plain response is a list.
        request_id: KServe v2's "id", given back.
        wants_binary: Whether KServe v2's output tensor is to be raw bytes after the JSON.
    """

    instances: tuple[Any, ...]
    protocol: Protocol = Protocol.PLAIN
    is_many: bool = False
    request_id: str | None = None
    wants_binary: bool = False


def check_count(count: int, max_instances: int) -> None:
    """Refuse more instances than one request may have.

    Raises:
        PayloadTooLargeError: 413, there are more.
    """
    if count > max_instances:
        raise PayloadTooLargeError(
            f"the request has {count} instances; this model takes {max_instances}: send several requests",
            code="too_many_instances",
        )


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a value."""
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "object" if isinstance(value, Mapping) else type(value).__name__)


class Repeated(tuple[Any, ...]):
    """The values of several form fields of one name, in the form's order."""

    __slots__ = ()
