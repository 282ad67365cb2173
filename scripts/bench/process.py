"""Child processes that never outlive the benchmark, what they use of the machine, and environments made once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import psutil

from ts_handlers.errors import OperatorError

TS_HANDLERS = (sys.executable, "-m", "ts_handlers.cli")
"""The command line of this environment."""

INSTALL_SECONDS = 1800.0

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied)
_MEMORY_EVERY_S = 0.25
_TAIL_LINES = 25
_DROPPED = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME"}
_DROPPED |= {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TS_CONFIG_FILE", "LOG_LOCATION"}


class BenchError(OperatorError):
    """The benchmark cannot go on: what was wrong, what was seen, what to do."""


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; empty where it has ended."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


class Child:
    """A process whose output goes to a file. Leaving the `with` ends it and its descendants, whatever they ignore."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path, stop_seconds: float = 30.0
    ) -> None:
        self._command, self._log, self._stop_seconds = [str(part) for part in command], log, stop_seconds
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd
            )

    def __enter__(self) -> Child:  # noqa: PYI034  # typing.Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        members = tree(self.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_seconds)
        for process in {*members, *tree(self.pid)}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the end and return the exit code; raises BenchError when the time is up."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self._command[0]} still runs after {timeout_seconds:.0f} s\n{self.tail()}") from error

    def tail(self) -> str:
        """Return the last lines of its output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


def run(
    *command: str | Path, log: Path, timeout_seconds: float = INSTALL_SECONDS, good_codes: Collection[int] = (0,)
) -> str:
    """Run a command to its end in the folder of its log, and return its output.

    Raises:
        BenchError: Its exit code is none of `good_codes`, or the time is up.
    """
    with Child(command, log=log, env=clean_env(), cwd=log.parent) as child:
        code = child.wait(timeout_seconds)
        if code not in good_codes:
            raise BenchError(f"exit code {code} from: {' '.join(map(str, command))}\n{child.tail()}")
    return log.read_text(encoding="utf-8", errors="replace")


def cli(verb: str, *arguments: str | Path, is_shown: bool = True, **options: Any) -> str:
    """Run a command of `ts-handlers`, with the options of `run`."""
    if is_shown:
        print(f"ts-handlers {verb} {' '.join(map(str, arguments))}", flush=True)
    return run(*TS_HANDLERS, verb, *arguments, **options)


class Usage:
    """What a tree of processes uses while a `with` block runs.

    Memory is the sum of the processes' proportional set sizes, so that a page that two share counts once; it is looked at
    four times a second. CPU time includes that of processes that came and went, as far as those that stayed waited for them.

    Args:
        pid: The process the others descend from.

    Attributes:
        spent: CPU time in the block, in seconds, and what of it was Java's.
        peak_mib: Most memory.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.spent, self.peak_mib = CpuTime(), 0.0

    def __enter__(self) -> Usage:  # noqa: PYI034  # typing.Self needs Python 3.11
        self._before = cpu_time(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        now, before = cpu_time(self._pid), self._before
        self.spent = CpuTime(*(later - earlier for later, earlier in zip(now, before, strict=True)))

    def _watch(self) -> None:
        while not self._ended.wait(_MEMORY_EVERY_S):
            total = 0
            for process in tree(self._pid):
                with suppress(*_GONE):
                    total += process.memory_full_info().pss
            self.peak_mib = max(self.peak_mib, total / 2**20)


class CpuTime(NamedTuple):
    """What processes had of the CPUs, and wanted, in seconds.

    Attributes:
        all_s: CPU time of all, and of children that they waited for.
        java_s: That of those called java.
        waiting_s: Time that threads of the others were ready to run and had no CPU.
    """

    all_s: float = 0.0
    java_s: float = 0.0
    waiting_s: float = 0.0


def cpu_time(pid: int) -> CpuTime:
    """Return the CPU time so far of a process and its descendants."""
    all_s = java_s = waiting_s = 0.0
    for process in tree(pid):
        with suppress(*_GONE, OSError):
            used = sum(process.cpu_times()[:4])  # user, system, and both of ended children
            is_java = process.name() == "java"
            all_s, java_s = all_s + used, java_s + used * is_java
            tasks = () if is_java else Path(f"/proc/{process.pid}/task").iterdir()
            waiting_s += sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9
    return CpuTime(all_s, java_s, waiting_s)


def make_environment(folder: Path, *installs: Sequence[str]) -> Path:
    """Return the Python of a virtual environment, made once, with one `pip install` for each of `installs`."""
    wanted, stamp, python = repr(installs), folder / "installed.txt", folder / "bin" / "python"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted):
        print(f"making the environment {folder} (some minutes, once)", flush=True)
        log = folder.with_name(f"{folder.name}.log")
        run(sys.executable, "-m", "venv", "--clear", folder, log=log)
        for arguments in installs:
            run(python, "-m", "pip", "--quiet", "install", *arguments, log=log)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def clean_env(**extra: str) -> dict[str, str]:
    """Return this environment without thread limits or a Python of its own, as every side gets it."""
    kept = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | extra


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a TCP port of 127.0.0.1 for each name that nobody listens on now."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: int(probe.getsockname()[1]) for name, probe in zip(names, sockets, strict=True)}


def end_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that `with` blocks end what they started, as on Ctrl-C."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
