"""Which workers have something to answer, read from the kernel: it needs no token, and a handler that sleeps counts, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

_WORKER_SCRIPT = "model_service_worker"
_ADDRESS_OPTIONS = ("--sock-name", "--port")

_POLL_S = 0.1
_QUIET_S = 0.4
"""So long no worker may be busy: a request that Java has and no worker yet is seen by the next look."""

_IDLE_CPU_S = 0.011
"""CPU time that an idle worker may take between two looks, where the kernel does not say what it waits for: one tick."""


def wait_quiet(look: Callable[[], tuple[str, float]], timeout_s: float, poll_s: float = _POLL_S) -> str:
    """Wait until nothing has gone on for a while; return what was last busy when the time is up, "" for nothing.

    Args:
        look: Returns what is busy, and for how many seconds nothing may be.
        timeout_s: Seconds to wait at most.
        poll_s: Seconds between two looks.
    """
    quiet_since, last_busy = time.monotonic(), ""
    deadline = quiet_since + timeout_s
    while True:
        busy, quiet_s = look()
        now = time.monotonic()
        if busy:
            quiet_since, last_busy = now, busy
        if now - quiet_since >= quiet_s:
            return ""
        if now > deadline:
            return last_busy
        time.sleep(poll_s)


def wait_idle(java_pid: int, timeout_s: float, *, batch_delay_s: float = 0.0) -> str:
    """Wait until no worker of a frontend has a request; return what is still busy when the time is up, "" for nothing.

    A worker that is being loaded counts as busy: requests may wait for it.

    Args:
        java_pid: The frontend.
        timeout_s: Seconds to wait at most.
        batch_delay_s: How long a request may wait within Java for its batch to fill, where no worker knows of it yet.
    """
    cpu_s: dict[int, float] = {}
    quiet_s = _QUIET_S + batch_delay_s
    return wait_quiet(lambda: (describe_busy(workers_of(java_pid), cpu_s), quiet_s), timeout_s)


def describe_busy(pids: Iterable[int], cpu_s: dict[int, float]) -> str:
    """Say how many workers have something to answer; "" for none.

    Args:
        pids: Their processes; one that has ended has nothing.
        cpu_s: CPU time of each at the last look, s; updated. It is what tells where the kernel does not.
    """
    waiting = [_is_waiting(pid, cpu_s) for pid in pids]
    return "" if all(waiting) else f"{waiting.count(False)} of {len(waiting)} workers have not answered yet"


def workers_of(java_pid: int) -> Iterator[int]:
    """Return the workers that a frontend has started."""
    with suppress(psutil.Error):
        for child in psutil.Process(java_pid).children(recursive=True):
            with suppress(psutil.Error):
                if any(_WORKER_SCRIPT in word for word in child.cmdline()):
                    yield child.pid


def _is_waiting(pid: int, cpu_s: dict[int, float]) -> bool:
    """Say whether a worker waits for its next request."""
    try:
        worker = psutil.Process(pid)
        waits_on = _descriptor_waited_on(pid)
        if waits_on is not None:
            return waits_on in _connections(worker)
        times = worker.cpu_times()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    before, cpu_s[pid] = cpu_s.get(pid, -1.0), times.user + times.system
    return cpu_s[pid] - before <= _IDLE_CPU_S


def _descriptor_waited_on(pid: int) -> int | None:
    """Return the first argument of the system call that a process's main thread is in; -1 where it computes.

    None where the kernel does not tell (proc(5), /proc/PID/syscall: another user's process, or a container without ptrace).
    """
    try:
        words = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(words[1], 16) if len(words) > 2 else -1


def _connections(worker: psutil.Process) -> set[int]:
    """Return the descriptors of a worker's connections with its frontend: those at the address it was started with."""
    words = worker.cmdline()
    addresses = {word for option, word in pairwise(words) if option in _ADDRESS_OPTIONS}
    return {
        connection.fd
        for connection in worker.net_connections("all")
        if connection.status != psutil.CONN_LISTEN and _address(connection.laddr) in addresses
    }


def _address(local: object) -> str:
    return str(getattr(local, "port", local))
