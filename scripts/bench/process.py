"""Child processes that never outlive the benchmark: each is the root of a tree that is stopped by pid. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from ts_handlers.errors import OperatorError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_TAIL_LINES = 25


class BenchError(OperatorError):
    """The benchmark cannot go on: what was wrong, what was seen, what to do."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc: `start_ticks` tells a process from a later one with the same pid."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    cpu_seconds: float


def tree(root: int) -> list[ProcessStat]:
    """Return the living processes of the session `root` leads and all its descendants."""
    stats = {stat.pid: stat for stat in map(_read_stat, _pids()) if stat is not None}
    members = {pid for pid, stat in stats.items() if pid == root or stat.session == root}
    grown = True
    while grown:
        children = {pid for pid, stat in stats.items() if stat.parent in members}
        grown = not children <= members
        members |= children
    return [stats[pid] for pid in members]


class Child:
    """A process in a session of its own; its output goes to a file. Leaving the `with` stops its whole tree."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path, stop_seconds: float = 20.0
    ) -> None:
        self._command = [str(part) for part in command]
        self._log, self._env, self._cwd = log, dict(env), cwd
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:  # noqa: PYI034  # typing.Self needs Python 3.11
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        members = tree(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_seconds)
        survivors = {(stat.pid, stat.start_ticks) for stat in [*members, *tree(self._process.pid)]}
        for pid, start_ticks in survivors:
            stat = _read_stat(pid)
            if stat is not None and stat.start_ticks == start_ticks:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._started().poll()

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the end and return the exit code; raises BenchError when the time is up."""
        try:
            return self._started().wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self._command[0]} still runs after {timeout_seconds:.0f} s\n{self.tail()}") from error

    def cpu_seconds(self) -> float:
        """CPU used so far by the living processes of the tree."""
        return sum(stat.cpu_seconds for stat in tree(self._started().pid))

    def tail(self) -> str:
        """Return the last lines of its output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BenchError(f"{self._command[0]} was not started")
        return self._process


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    timeout_seconds: float,
    good_codes: Collection[int] = (0,),
) -> str:
    """Run a command to its end and return its output; raises BenchError on another exit code than `good_codes`."""
    with Child(command, log=log, env=env, cwd=cwd) as child:
        code = child.wait(timeout_seconds)
        if code not in good_codes:
            shown = " ".join(str(part) for part in command)
            raise BenchError(f"exit code {code} from: {shown}\n{child.tail()}")
    return log.read_text(encoding="utf-8", errors="replace")


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that `with` blocks stop what they started (as Ctrl-C does)."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def wait_until(deadline: float, interval_seconds: float = 0.25) -> bool:
    """Sleep one interval; return False once `deadline` (time.monotonic) has passed."""
    time.sleep(interval_seconds)
    return time.monotonic() < deadline


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when the benchmark dies in a way that runs no `finally`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read_stat(pid: int) -> ProcessStat | None:
    """Parse /proc/PID/stat (proc(5)); None for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # from field 3 on: the name may hold spaces and brackets
    if fields[0] == "Z":
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessStat(pid, int(fields[1]), int(fields[3]), int(fields[19]), ticks / os.sysconf("SC_CLK_TCK"))
