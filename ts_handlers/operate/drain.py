"""`ts-handlers drain`: wait until a server has nothing left to answer, as a preStop hook.

A pod that is to end goes on getting requests for a moment, until every node has heard of it. When none comes any more, the
queues are empty and the workers are idle, TorchServe can end without losing a request: by itself it would not wait. The
management API says how many requests wait, and the kernel which workers do something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import psutil

from ts_handlers.operate.arguments import add_server_arguments, whole
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError, Worker
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import ConfiguredModel, served_models
from ts_handlers.operate.torchserve.process.idle import is_waiting

HELP = "wait until a running server has answered all it was asked: exit code 0, or 1 when the time is up"

NOT_DRAINED = 1
SETTLE_S = 10
TIMEOUT_S = 130

_POLL_S = 0.5
_QUIET_S = 2.0
"""So long nothing may be going on: a request that arrives between two looks is seen by the next one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers drain`."""
    add_server_arguments(parser)
    parser.add_argument(
        "--settle-s",
        metavar="S",
        type=whole(0, 3600),
        default=SETTLE_S,
        help="seconds until nobody sends requests any more (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout-s",
        metavar="S",
        type=whole(1, 24 * 3600),
        default=TIMEOUT_S,
        help="seconds to wait at most, --settle-s among them (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Wait; say what was waited for."""
    config = read_config(args.config)
    start = time.monotonic()
    time.sleep(min(args.settle_s, args.timeout_s))
    watch = _IdleWatch(served_models(config), TorchServe.of(config, args.run_dir))
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _QUIET_S + watch.batch_delay_s:
        busy = watch.what_is_busy()
        now = time.monotonic()
        if busy:
            quiet_since = now
        if now - start > args.timeout_s:
            if not busy:
                break
            print(f"not drained after {now - start:.0f} s: {busy}")
            return NOT_DRAINED
        time.sleep(_POLL_S)
    print(f"drained after {time.monotonic() - start:.0f} s")
    return 0


class _IdleWatch:
    """What goes on in a server, from one look to the next.

    Attributes:
        batch_delay_s: Longest that a request may wait for its batch to fill: it is in no queue then, and no worker has it.
    """

    def __init__(self, models: Sequence[ConfiguredModel], server: TorchServe) -> None:
        self._models = models
        self._server = server
        self._cpu_s: dict[int, float] = {}
        self.batch_delay_s = 0.0

    def what_is_busy(self) -> str:
        """Return what is not idle, or cannot be told; empty for nothing."""
        workers: list[Worker] = []
        for model in self._models:
            try:
                status = self._server.status(model.name, model.version)
            except TorchServeError as error:
                return f"{model.label}: {error}"
            self.batch_delay_s = max(self.batch_delay_s, status.max_batch_delay_ms / 1000)
            if status.queued:
                return f"{model.label} has {status.queued} in its queue"
            workers += status.workers
        # the others are being loaded, and nobody waits for them
        pids = [worker.pid for worker in workers if worker.is_ready]
        busy = [pid for pid in pids if not self._is_waiting(pid)]
        return f"{len(busy)} of {len(pids)} workers have not answered yet" if busy else ""

    def _is_waiting(self, pid: int) -> bool:
        try:
            return is_waiting(psutil.Process(pid), self._cpu_s)
        except psutil.NoSuchProcess:  # it has ended meanwhile
            return True
