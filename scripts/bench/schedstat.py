"""CPU time of processes by the scheduler's own clock: nanoseconds, and how long a thread waited for a CPU. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import BenchError

PROC = Path("/proc")

_NUMBER = re.compile(r"[-#]\d")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """What the living threads of some processes had of the CPUs, and wanted.

    Attributes:
        running_s: CPU time.
        waiting_s: Time spent ready to run while others had the CPUs.
        threads_s: CPU time by the name of the thread, numbers left out.
    """

    running_s: float = 0.0
    waiting_s: float = 0.0
    threads_s: dict[str, float] = field(default_factory=dict)

    def since(self, earlier: CpuTime) -> CpuTime:
        """Return what came on top of `earlier`."""
        threads = {name: seconds - earlier.threads_s.get(name, 0.0) for name, seconds in self.threads_s.items()}
        return CpuTime(self.running_s - earlier.running_s, self.waiting_s - earlier.waiting_s, threads)


def read_cpu_time(pids: Iterable[int], proc: Path = PROC) -> CpuTime:
    """Add up /proc/PID/task/*/schedstat of `pids`; a thread that ends meanwhile is left out.

    Raises:
        BenchError: The kernel keeps no such figures.
    """
    if not (proc / "self" / "schedstat").is_file():
        raise BenchError(f"{proc}/self/schedstat does not exist; use a kernel with CONFIG_SCHED_INFO, as most are")
    running_ns = waiting_ns = 0
    threads: dict[str, float] = {}
    for pid in pids:
        for task in _tasks(proc / str(pid) / "task"):
            with suppress(OSError):
                running, waiting, _ = map(int, (task / "schedstat").read_text().split())
                name = thread_group((task / "comm").read_text().strip())
                running_ns, waiting_ns = running_ns + running, waiting_ns + waiting
                threads[name] = threads.get(name, 0.0) + running / 1e9
    return CpuTime(running_ns / 1e9, waiting_ns / 1e9, threads)


def thread_names(pids: Iterable[int], proc: Path = PROC) -> dict[int, str]:
    """Return the name of each process that is still there: that of its first thread."""
    names = {}
    for pid in pids:
        with suppress(OSError):
            names[pid] = (proc / str(pid) / "comm").read_text().strip()
    return names


def thread_group(name: str) -> str:
    """Return the name threads of one kind share: `epollEventLoopG` of `epollEventLoopG-3-1`, `W` of `W-9000-model`."""
    return _NUMBER.split(name, maxsplit=1)[0] or name


def _tasks(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
