"""The process that started this worker: TorchServe, or a launcher that binds its workers itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = "torch.backends.xeon.run_cpu"


@dataclass(frozen=True, slots=True)
class Parent:
    """This worker's parent.

    Attributes:
        pid: Its process id.
        started_s: When it started, in whole seconds since boot.
        is_launcher: Whether it is torch's CPU launcher.
    """

    pid: int
    started_s: int
    is_launcher: bool

    @classmethod
    def of_this_process(cls, root: Path = Path("/")) -> Parent:
        """Read who this process's parent is."""
        pid = os.getppid()
        try:
            command = (root / f"proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # a parent outside this PID namespace
            command = []
        return cls(pid, _started_s(root, pid), any(_LAUNCHER in word for word in command))

    def affinity(self) -> tuple[int, ...] | None:
        """Return the CPUs it may use now; None where it has ended or is not to be seen."""
        try:
            return tuple(sorted(os.sched_getaffinity(self.pid))) if self.pid else None
        except OSError:
            return None


def _started_s(root: Path, pid: int) -> int:
    for name in (str(pid), "self"):
        try:
            stat = (root / f"proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, proc(5); the name in brackets may hold spaces
        return ticks // os.sysconf("SC_CLK_TCK")
    return 0
