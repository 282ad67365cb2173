"""How a worker is removed without losing a request: it is held on a describe request while TorchServe takes it down.

TorchServe's scale-down takes its last worker, whatever that is doing, and answers its batch with an error (or hands it to
another worker, or both: two threads of the frontend race for it). A describe request is a batch of its own. While it has not
been answered the frontend gives the worker nothing else, so whoever holds the worker on one can remove it, and the only
request that can be lost is that one.

A describe request that names this process has it connect to the abstract socket that the request names, say the request's
secret there, and wait until the other side closes. An abstract socket belongs to one network namespace, that is one
machine or pod, and to one user here. Nobody listens: nothing is held, so a client that sends the header achieves nothing.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

from ts_handlers.machine import cpu_budget

logger = logging.getLogger(__name__)

HEADER = "x-ts-handlers-hold"
"""Header of a describe request: PID:NAME:SECRET, with the worker's process id and two hexadecimal numbers."""

MOST_HELD_S = 30.0
"""A worker goes on after so long, whatever the other side does; TorchServe's own limit is responseTimeout."""

_VALUE = re.compile(r"(\d{1,10}):([0-9a-f]{16,64}):([0-9a-f]{16,64})")


def gate_name(name: str) -> str:
    """Return the abstract socket on which whoever holds a worker listens."""
    return f"\0ts_handlers/hold/{name}"


def describe_worker() -> dict[str, Any]:
    """Return what a describe answer says of the process: its id, and the CPU quota that it is under now."""
    return {"pid": os.getpid(), "cpu_quota": cpu_budget().quota}


def hold_if_asked(headers: Mapping[str, Any], most_s: float = MOST_HELD_S) -> None:
    """Wait until this worker is removed or let go, where a request asks for it and somebody of this user stands behind it.

    Args:
        headers: Headers of a describe request.
        most_s: Longest wait in seconds.
    """
    text = next((str(value) for name, value in headers.items() if str(name).lower() == HEADER), "")
    match = _VALUE.fullmatch(text)
    if match is None or int(match.group(1)) != os.getpid():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gate:
        gate.settimeout(most_s)
        try:
            gate.connect(gate_name(match.group(2)))
            if peer_uid(gate) not in (0, os.geteuid()):
                logger.warning("ts_handlers: another user asked to hold this worker; it goes on")
                return
            gate.sendall(match.group(3).encode())
            logger.info("ts_handlers: held, to be removed")
            gate.recv(1)  # ends with the other side; SIGKILL comes first where the worker is removed
        except OSError as error:  # nobody listens, or the wait is over
            logger.info("ts_handlers: not held any longer: %s", error)


def peer_uid(connection: socket.socket) -> int:
    """Return the user of the process at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)
