"""`ts-handlers drain`: wait until a server has nothing left to answer, as a preStop hook.

A pod that is to end goes on getting requests for a moment, until every node has heard of it. When none comes any more, the
queues are empty and the workers are idle, TorchServe can end without losing a request: by itself it would not wait. The
management API says how many requests wait, and the kernel which workers do something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from ts_handlers.operate.arguments import add_server_arguments, whole
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import ConfiguredModel, served_models
from ts_handlers.operate.torchserve.process.idle import describe_busy, wait_quiet

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
    models, server = served_models(config), TorchServe.of(config, args.run_dir)
    start = time.monotonic()
    settle_s = min(args.settle_s, args.timeout_s)
    time.sleep(settle_s)
    cpu_s: dict[int, float] = {}
    busy = wait_quiet(lambda: _what_is_busy(server, models, cpu_s), args.timeout_s - settle_s, _POLL_S)
    print(f"{'not drained' if busy else 'drained'} after {time.monotonic() - start:.0f} s{f': {busy}' if busy else ''}")
    return NOT_DRAINED if busy else 0


def _what_is_busy(server: TorchServe, models: Sequence[ConfiguredModel], cpu_s: dict[int, float]) -> tuple[str, float]:
    """Return what is not idle, or cannot be told, and how long nothing may be: batches take a while to fill."""
    ready: list[int] = []
    quiet_s = _QUIET_S
    for model in models:
        try:
            status = server.status(model.name, model.version)
        except TorchServeError as error:
            return f"{model.label}: {error}", quiet_s
        quiet_s = max(quiet_s, _QUIET_S + status.max_batch_delay_ms / 1000)
        if status.queued:
            return f"{model.label} has {status.queued} in its queue", quiet_s
        # the others are being loaded, and nobody waits for them
        ready += [worker.pid for worker in status.workers if worker.is_ready]
    return describe_busy(ready, cpu_s), quiet_s
