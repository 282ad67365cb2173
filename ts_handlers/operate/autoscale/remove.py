"""Remove a model's last worker without losing a request: hold it on a describe request, then scale down.

The frontend hands a describe request to whichever worker asks next, so it is repeated until the last one has taken it; the
others answer at once. `ts_handlers.hosts.torchserve.hold` is the worker's side.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from ts_handlers.errors import OperatorError
from ts_handlers.hosts.torchserve.hold import HEADER, MOST_HELD_S, gate_name, peer_uid
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError, Worker

T = TypeVar("T")

SETTLE_S = 5.0
"""TorchServe has taken a worker out of its list before it answers; this is for a slow machine."""

_POLL_S = 0.02
_PAUSE_S = 0.05
"""After a worker that was not meant has answered."""


class NotRemovedError(OperatorError):
    """The worker is still there and serves."""


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread of its own, which does not keep the program from ending as an executor's would."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def remove_workers(server: TorchServe, model: str, count: int, timeout_s: float) -> tuple[int, str]:
    """Remove workers one by one; return how many are gone, and why the others stay."""
    for num_removed in range(count):
        try:
            remove_last_worker(server, model, timeout_s)
        except OperatorError as error:  # noqa: PERF203  # it is one, as a rule
            return num_removed, str(error)
    return count, ""


def remove_last_worker(server: TorchServe, model: str, timeout_s: float, *, settle_s: float = SETTLE_S) -> None:
    """Remove the worker that TorchServe removes first, once it is held.

    Args:
        server: The server.
        model: The model's name.
        timeout_s: How long to look for the moment.
        settle_s: How long TorchServe may take then.

    Raises:
        NotRemovedError: It could not be held, so it stays.
        TorchServeError: The server does not answer.
    """
    before = server.status(model).workers
    if not before:
        raise NotRemovedError(f"{model}: it has no workers any longer")
    victim = before[-1]
    with _held(server, model, victim, timeout_s):
        now = server.status(model).workers
        if [each.name for each in now] != [each.name for each in before]:
            raise NotRemovedError(f"{model}: somebody else changes its workers; none is removed")
        server.scale(model, len(now) - 1)
        deadline = time.monotonic() + settle_s
        while any(worker.name == victim.name for worker in server.status(model).workers):
            if time.monotonic() > deadline:
                raise NotRemovedError(f"{model}: TorchServe was asked to remove worker {victim.name} and has not")
            time.sleep(_POLL_S)


@contextmanager
def _held(server: TorchServe, model: str, victim: Worker, timeout_s: float) -> Iterator[None]:
    """Hold a worker while the block runs.

    Raises:
        NotRemovedError: It was not found in time, or its handler cannot be held.
        TorchServeError: The server does not answer.
    """
    name, secret = secrets.token_hex(8), secrets.token_hex(16)
    headers = {HEADER: f"{victim.pid}:{name}:{secret}"}
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gate:
        gate.bind(gate_name(name))
        gate.listen()
        gate.settimeout(_POLL_S)
        while True:
            answer = in_background(lambda: server.describe_by_worker(model, headers, MOST_HELD_S + timeout_s))
            while not answer.done() and time.monotonic() < deadline:
                try:
                    connection, _ = gate.accept()
                except TimeoutError:
                    continue
                with connection:
                    if _is_meant(connection, secret):
                        yield
                        return
            if time.monotonic() >= deadline:
                raise NotRemovedError(
                    f"{model}: worker {victim.name} was too busy to be held within {timeout_s:g} s; it stays"
                )
            _check(answer, model, victim)
            time.sleep(_PAUSE_S)


def _is_meant(connection: socket.socket, secret: str) -> bool:
    """Say whether the worker that is to be held has connected: a process of this user that knows the secret."""
    connection.settimeout(1.0)
    try:
        said = connection.recv(len(secret), socket.MSG_WAITALL).decode("ascii", "replace")
    except OSError:
        return False
    return peer_uid(connection) in (0, os.geteuid()) and secrets.compare_digest(said, secret)


def _check(answer: Future[Any], model: str, victim: Worker) -> None:
    """Say why there is no use in going on, where a worker's answer shows that there is none."""
    try:
        said = answer.result()
    except TorchServeError as error:  # a full queue: there is work for this worker
        raise NotRemovedError(f"{model}: worker {victim.name} cannot be held; it stays: {error}") from error
    if "pid" not in said:
        raise NotRemovedError(
            f"{model}: its handler cannot hold a worker while it is removed, so workers are only added; it needs "
            "ts_handlers' InferenceHandler"
        )
