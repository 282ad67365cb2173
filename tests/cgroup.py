"""A real control group with a CPU quota, where this machine lets a test make one (root, and a writable hierarchy)."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PERIOD_US = 100_000


@dataclass(frozen=True)
class CpuGroup:
    """A control group of the cpu controller, v1 or v2.

    Attributes:
        path: Its folder; None where none can be made here, so that nothing has a quota.
    """

    path: Path | None

    def add(self, pid: int) -> None:
        """Put a process into it; what it starts later is in it, too."""
        if self.path is not None:
            (self.path / "cgroup.procs").write_text(str(pid))

    def set_quota(self, cpus: float) -> None:
        """Write its quota, as the kubelet does."""
        if self.path is None:
            return
        quota_us = round(cpus * _PERIOD_US)
        if (self.path / "cpu.max").exists():
            (self.path / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (self.path / "cpu.cfs_quota_us").write_text(str(quota_us))


@contextlib.contextmanager
def cpu_group() -> Iterator[CpuGroup]:
    """Make a group and remove it; the processes in it must have ended by then."""
    name = f"ts-handlers-test-{uuid.uuid4().hex[:8]}"
    for parent in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = CpuGroup(parent / name)
        try:
            (parent / name).mkdir()
        except OSError:
            continue
        try:
            try:
                group.set_quota(1.0)
            except OSError:  # no cpu controller here
                continue
            yield group
            return
        finally:
            (parent / name).rmdir()
    yield CpuGroup(None)
