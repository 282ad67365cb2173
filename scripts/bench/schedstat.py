"""CPU time of processes, by kind of thread, and how long their threads waited for a CPU. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import BenchError, ProcessStat

PROC = Path("/proc")

_NUMBER = re.compile(r"[-#]\d")


ENDED = "(threads that ended)"


@dataclass(frozen=True, slots=True)
class CpuTime:
    """What some processes had of the CPUs, and wanted.

    Attributes:
        running_s: CPU time, of threads that have ended too; in steps of 10 ms.
        waiting_s: Time the living threads spent ready to run while others had the CPUs.
        threads_s: CPU time of the living threads by name, numbers left out.
    """

    running_s: float = 0.0
    waiting_s: float = 0.0
    threads_s: dict[str, float] = field(default_factory=dict)

    def since(self, earlier: CpuTime) -> CpuTime:
        """Return what came on top of `earlier`; what no living thread accounts for is ENDED."""
        threads = {name: seconds - earlier.threads_s.get(name, 0.0) for name, seconds in self.threads_s.items()}
        running_s = self.running_s - earlier.running_s
        threads[ENDED] = max(0.0, running_s - sum(threads.values()))
        return CpuTime(running_s, self.waiting_s - earlier.waiting_s, threads)


def read_cpu_time(processes: Iterable[ProcessStat], proc: Path = PROC) -> CpuTime:
    """Add /proc/PID/task/*/schedstat of `processes` to their own figures; a thread that ends meanwhile is left out.

    Raises:
        BenchError: The kernel keeps no such figures.
    """
    if not (proc / "self" / "schedstat").is_file():
        raise BenchError(f"{proc}/self/schedstat does not exist; use a kernel with CONFIG_SCHED_INFO, as most are")
    running_s, waiting_ns = 0.0, 0
    threads: dict[str, float] = {}
    for process in processes:
        running_s += process.cpu_seconds
        for task in _tasks(proc / str(process.pid) / "task"):
            with suppress(OSError):
                running, waiting, _ = map(int, (task / "schedstat").read_text().split())
                name = thread_group((task / "comm").read_text().strip())
                waiting_ns += waiting
                threads[name] = threads.get(name, 0.0) + running / 1e9
    return CpuTime(running_s, waiting_ns / 1e9, threads)


def process_names(pids: Iterable[int], proc: Path = PROC) -> dict[int, str]:
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
