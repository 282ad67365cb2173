"""TorchServe's messages to a worker, read through a buffer.

Its codec asks the kernel for every field by itself, four times for each header of a request, and gathers a body of several
megabytes from many pieces: with short texts a sixth of what a worker spends beside the model.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import ModuleType

logger = logging.getLogger(__name__)

BUFFER_BYTES = 2**16
"""More than a batch of texts has; what is larger goes past the buffer."""

_READ = "_retrieve_buffer"
"""The one function of TorchServe's codec that reads: (connection, number of bytes) -> bytes."""

Read = Callable[[socket.socket, int], "bytes | bytearray"]


def buffer_reads(codec: ModuleType) -> None:
    """Let the codec read through a buffer, from its next message on.

    Args:
        codec: ts.protocol.otf_message_handler. One that has no such function is left as it is, with a line in the log.
    """
    unbuffered = getattr(codec, _READ, None)
    if unbuffered is None:
        logger.warning("this TorchServe's codec has no %s; requests are read without a buffer, field by field", _READ)
    elif unbuffered.__module__ != __name__:
        setattr(codec, _READ, buffered(unbuffered))


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
