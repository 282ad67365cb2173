"""Bind every thread of this process to CPUs, and its memory to their NUMA node."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ts_handlers.machine.topology import Core, format_cpu_list

_MAX_ROUNDS = 20


def bind_threads(cpus: Collection[int], task_folder: Path = Path("/proc/self/task")) -> None:
    """Bind every thread of this process, those that start meanwhile included, and check that the kernel did.

    A thread inherits the mask of the one that starts it, so threads that come later are bound as well.

    Args:
        cpus: CPU numbers.
        task_folder: The kernel's list of this process's threads.

    Raises:
        OSError: The kernel refuses (a CPU outside the cpuset, a sandbox), or a thread has another mask afterwards.
    """
    wanted = set(cpus)
    for _ in range(_MAX_ROUNDS):
        loose = [thread for thread in _threads(task_folder) if _mask(thread) not in (wanted, None)]
        if not loose:
            return
        for thread in loose:
            with contextlib.suppress(ProcessLookupError):  # it ended
                os.sched_setaffinity(thread, wanted)
    raise OSError(f"threads keep another mask than CPUs {format_cpu_list(wanted)}; something else binds them")


def bind_memory(cores: Collection[Core], cpus: Collection[int], library: Callable[[], Any | None] | None = None) -> str:
    """Prefer memory of the NUMA node these CPUs are on; nothing where there is one node, or no libnuma.

    Preferred and not enforced: a full node must cost time, not the process. It holds for what is allocated from now on by
    the calling thread and those it starts.

    Args:
        cores: All usable cores.
        cpus: This worker's CPUs.
        library: Loads libnuma; None where it is not installed.

    Returns:
        What was done, in a few words; empty for nothing.
    """
    if len({core.node for core in cores}) < 2:
        return ""
    libnuma = (library or _libnuma)()
    if libnuma is None:
        return "memory not bound: libnuma is not installed"
    if libnuma.numa_available() < 0:
        return "memory not bound: the kernel, or a sandbox, does not allow it"
    nodes = sorted({core.node for core in cores if set(core.cpus) & set(cpus)})
    if len(nodes) > 1:
        libnuma.numa_set_localalloc()
        return f"memory of nodes {', '.join(map(str, nodes))}"
    libnuma.numa_set_preferred(nodes[0])
    return f"memory of node {nodes[0]}"


def bound_cpus(task_folder: Path = Path("/proc/self/task")) -> tuple[int, ...]:
    """Return the CPUs this process may run on: those of all its threads, for a library may bind some of them itself."""
    return tuple(sorted({cpu for thread in _threads(task_folder) for cpu in _mask(thread) or ()}))


def _libnuma() -> Any | None:
    try:
        return ctypes.CDLL("libnuma.so.1")
    except OSError:
        return None


def _threads(task_folder: Path) -> list[int]:
    return [int(entry.name) for entry in task_folder.iterdir()]


def _mask(thread: int) -> set[int] | None:
    """Return a thread's CPUs; None where it has ended."""
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return None
