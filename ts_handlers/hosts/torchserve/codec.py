"""TorchServe's messages to a worker: read through a buffer, and with all fields of a form.

Its codec asks the kernel for every field by itself, four times for each header of a request, and gathers a body of several
megabytes from many pieces: with short texts a sixth of what a worker spends beside the model. Of several fields of one name,
what reads its result keeps the last.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ts_handlers.requests.request import Repeated

logger = logging.getLogger(__name__)

BUFFER_BYTES = 2**16
"""More than a batch of texts has; what is larger goes past the buffer."""

_READ = "_retrieve_buffer"
"""The one function of TorchServe's codec that reads: (connection, number of bytes) -> bytes."""

_REQUEST = "_retrieve_request"
"""The one that reads a request of a batch: (connection) -> its headers and parameters; None after the last."""

Read = Callable[[socket.socket, int], "bytes | bytearray"]


def buffer_reads(codec: ModuleType) -> None:
    """Let the codec read through a buffer, from its next message on.

    Args:
        codec: ts.protocol.otf_message_handler. One that has no such function is left as it is, with a line in the log.
    """
    _wrap(codec, _READ, buffered, "requests are read without a buffer, field by field")


def buffered(unbuffered: Read) -> Read:
    """Return a function that reads the next bytes of a connection; where the frontend is gone, `unbuffered` is called."""
    known: socket.socket | None = None
    read: Callable[[int], bytes]

    def retrieve(connection: socket.socket, length: int) -> bytes | bytearray:
        nonlocal known, read
        if connection is not known:  # a worker has one at a time
            known, read = connection, connection.makefile("rb", BUFFER_BYTES).read
        data = read(length)
        return data if len(data) == length else unbuffered(connection, length - len(data))

    return retrieve


def keep_repeated_fields(codec: ModuleType) -> None:
    """Let the codec give a form's fields of one name as one parameter, whose value is `Repeated`.

    Args:
        codec: ts.protocol.otf_message_handler. One that has no such function is left as it is, with a line in the log.
    """
    _wrap(codec, _REQUEST, _with_repeated_fields, "of form fields of one name the last is read")


def _wrap(codec: ModuleType, name: str, wrap: Callable[[Any], Any], without: str) -> None:
    """Put `wrap` around a function of the codec, once. `without` says what one without that function does instead."""
    function = getattr(codec, name, None)
    if function is None:
        logger.warning("this TorchServe's codec has no %s; %s", name, without)
    elif function.__module__ != __name__:
        setattr(codec, name, wrap(function))


def _with_repeated_fields(
    retrieve: Callable[[socket.socket], dict[str, Any] | None],
) -> Callable[[socket.socket], dict[str, Any] | None]:
    def retrieve_request(connection: socket.socket) -> dict[str, Any] | None:
        request = retrieve(connection)
        parameters: list[dict[str, Any]] = request["parameters"] if request else []
        if request and len(parameters) > len({parameter["name"] for parameter in parameters}):
            request["parameters"] = _merged(parameters)
        return request

    return retrieve_request


def _merged(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for parameter in parameters:
        by_name.setdefault(parameter["name"], []).append(parameter)
    return [
        {**same[0], "value": Repeated(item["value"] for item in same)} if len(same) > 1 else same[0]
        for same in by_name.values()
    ]
