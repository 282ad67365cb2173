"""Remove a model's last worker without losing a request: hold it on a describe request, then scale down.

The frontend hands a describe request to whichever worker asks next, so it is repeated until the last one has taken it; the
others answer at once. `ts_handlers.hold` is the worker's side.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.hold import HEADER, MOST_HELD_S, gate_name, peer_uid
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError, Worker

_POLL_S = 0.02
_SETTLE_S = 5.0
"""TorchServe has taken a worker out of its list before it answers; this is for a slow machine."""

_PAUSE_S = 0.05
"""After a worker that was not meant has answered."""


class NotRemovedError(OperatorError):
    """The worker is still there and serves."""


def remove_last_worker(server: TorchServe, model: str, timeout_s: float, sleep: Callable[[float], None]) -> None:
    """Remove the worker that TorchServe removes first, once it is held.

    Args:
        server: The server.
        model: The model's name.
        timeout_s: How long to look for the moment.
        sleep: Waits; may raise to give up.

    Raises:
        NotRemovedError: It could not be held, so it stays.
        TorchServeError: The server does not answer.
    """
    before = server.status(model)
    victim = before.workers[-1]
    with _Gate() as gate, gate.hold(server, model, victim, timeout_s, sleep):
        now = server.status(model).workers
        if [each.name for each in now] != [each.name for each in before.workers]:
            raise NotRemovedError(f"{model}: somebody else changes its workers; none is removed")
        server.scale(model, len(now) - 1)
        deadline = time.monotonic() + _SETTLE_S
        while any(worker.name == victim.name for worker in server.status(model).workers):
            if time.monotonic() > deadline:
                raise NotRemovedError(f"{model}: TorchServe was asked to remove worker {victim.name} and has not")
            sleep(_POLL_S)


class _Gate:
    """Where the worker that is to be held says so; closing it lets the worker go."""

    def __init__(self) -> None:
        self._name, self._secret = secrets.token_hex(8), secrets.token_hex(16)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(gate_name(self._name))
        self._socket.listen()
        self._socket.settimeout(_POLL_S)

    def __enter__(self) -> _Gate:  # noqa: PYI034 (typing.Self needs Python 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @contextmanager
    def hold(
        self, server: TorchServe, model: str, victim: Worker, timeout_s: float, sleep: Callable[[float], None]
    ) -> Iterator[None]:
        """Hold a worker while the block runs.

        Raises:
            NotRemovedError: It was not found in time, or its handler cannot be held.
            TorchServeError: The server does not answer.
        """
        headers = {HEADER: f"{victim.pid}:{self._name}:{self._secret}"}
        deadline = time.monotonic() + timeout_s
        executor = ThreadPoolExecutor(1)
        try:
            while True:
                answer = executor.submit(server.describe_by_worker, model, headers, MOST_HELD_S + timeout_s)
                connection = self._wait(answer, deadline)
                if connection is not None:
                    with closing(connection):
                        yield
                    return
                self._check(answer, model, victim, deadline, timeout_s)
                sleep(_PAUSE_S)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _wait(self, answer: Future[Any], deadline: float) -> socket.socket | None:
        """Return the connection of the worker that is held; None where another one has answered."""
        while not answer.done() and time.monotonic() < deadline:
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            if self._is_meant(connection):
                return connection
            connection.close()
        return None

    def _is_meant(self, connection: socket.socket) -> bool:
        connection.settimeout(1.0)
        try:
            said = connection.recv(len(self._secret), socket.MSG_WAITALL).decode("ascii", "replace")
        except OSError:
            return False
        return peer_uid(connection) in (0, os.geteuid()) and secrets.compare_digest(said, self._secret)

    def _check(self, answer: Future[Any], model: str, victim: Worker, deadline: float, timeout_s: float) -> None:
        """Say why there is no use in going on, where there is none."""
        if time.monotonic() >= deadline:
            raise NotRemovedError(
                f"{model}: worker {victim.name} was too busy to be held within {timeout_s:g} s; it stays"
            )
        try:
            said = answer.result()
        except TorchServeError as error:  # a full queue: there is work for this worker
            raise NotRemovedError(f"{model}: worker {victim.name} cannot be held; it stays: {error}") from error
        if not isinstance(said, dict) or "pid" not in said:
            raise NotRemovedError(
                f"{model}: its handler cannot hold a worker while it is removed, so workers are only added; it needs "
                "ts_handlers' InferenceHandler"
            )
