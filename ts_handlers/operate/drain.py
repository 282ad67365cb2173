"""`ts-handlers drain`: wait until a server has nothing left to answer, as a preStop hook.

A pod that is to end goes on getting requests for a moment, until every node has heard of it. When none comes any more, the
queues are empty and the workers are idle, TorchServe can end without losing a request: by itself it would not wait. The
management API says how many requests wait; that a worker computes shows in its CPU time only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import psutil

from ts_handlers.operate.arguments import whole
from ts_handlers.operate.readiness import ManagementClient
from ts_handlers.operate.ready import add_server_arguments, client_of
from ts_handlers.operate.server_config import ServerConfig, read_server_config

HELP = "wait until a running server has answered all it was asked: exit code 0, or 1 when the time is up"

NOT_DRAINED = 1
SETTLE_S = 10
TIMEOUT_S = 130

_POLL_S = 0.5
_QUIET_POLLS = 4
"""So often in a row nothing may be going on: a request that arrives between two looks is seen by the next one."""

_IDLE_CPU_SHARE = 0.02
"""CPU time that an idle worker may take, of one CPU: its threads wait, but psutil counts in ticks of 10 ms."""

_MANAGEMENT_TIMEOUT_S = 10.0


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
    config = read_server_config(args.config)
    start = time.monotonic()
    time.sleep(min(args.settle_s, args.timeout_s))
    watch = _IdleWatch(config, client_of(config, args.run_dir, _MANAGEMENT_TIMEOUT_S))
    num_quiet = 0
    while num_quiet < _QUIET_POLLS:
        busy = watch.what_is_busy()
        num_quiet = 0 if busy else num_quiet + 1
        seconds = time.monotonic() - start
        if busy and seconds > args.timeout_s:
            print(f"not drained after {seconds:.0f} s: {busy}")
            return NOT_DRAINED
        time.sleep(_POLL_S)
    print(f"drained after {time.monotonic() - start:.0f} s")
    return 0


class _IdleWatch:
    """What goes on in a server, from one look to the next."""

    def __init__(self, config: ServerConfig, client: ManagementClient) -> None:
        self._config = config
        self._client = client
        self._cpu_s: dict[int, float] = {}
        self._looked_at = time.monotonic()

    def what_is_busy(self) -> str:
        """Return what is not idle, or cannot be told; empty for nothing. The first look takes every worker for busy."""
        workers: list[Mapping[str, Any]] = []
        for model in self._config.models:
            status, answer = self._client.get(f"/models/{model.name}/{model.version}")
            if status != 200:
                return f"the management API answers {status} for {model.name} {model.version}"
            waiting = answer[0].get("jobQueueStatus", {}).get("pendingRequests", 0)
            if waiting:
                return f"{model.name} {model.version} has {waiting} in its queue"
            workers += answer[0]["workers"]
        # what others take is loading, which nobody waits for
        return self._computing({worker["pid"] for worker in workers if worker["status"] == "READY"})

    def _computing(self, pids: set[int]) -> str:
        now, cpu_s = time.monotonic(), dict(_cpu_seconds(pids))
        allowed = max(0.011, _IDLE_CPU_SHARE * (now - self._looked_at))
        busy = [pid for pid, seconds in cpu_s.items() if seconds - self._cpu_s.get(pid, -1.0) > allowed]
        self._cpu_s, self._looked_at = cpu_s, now
        return f"{len(busy)} of {len(cpu_s)} workers computing" if busy else ""


def _cpu_seconds(pids: set[int]) -> Iterator[tuple[int, float]]:
    for pid in pids:
        with suppress(psutil.Error):  # it has ended meanwhile
            times = psutil.Process(pid).cpu_times()
            yield pid, times.user + times.system
