"""TorchServe's Java frontend as a child that cannot outlive us, with everything it starts.

It has a session of its own, so that a signal reaches it once and its workers can be found as one process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.config import ServerConfig
from ts_handlers.operate.torchserve.process.java import Java

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
"""The logging that is used unless another is asked for: calm on the console, complete in logs/."""

PROCESS_START_S = 150
"""How long Java may take to start, and a worker to answer it (TorchServe's own limit for that is 120 s)."""

STOP_GRACE_S = 20
"""How long a server may take to answer what it has, and to end; Kubernetes kills a container 30 s after it asked."""

_QUIET_OPTIONS = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")
"""What TorchServe's network library does anyway, and Java 24 and newer would warn about on the console."""

_MAIN_CLASS = "org.pytorch.serve.ModelServer"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_GROUP_SECONDS = 5.0


def torchserve_folder() -> Path:
    """Find the installed `ts` package without importing it.

    Raises:
        OperatorError: TorchServe is not installed, or without its frontend.
    """
    spec = importlib.util.find_spec("ts")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if any((Path(folder) / "frontend").glob("*.jar")):
            return Path(folder).resolve()
    where = f"its folder {folders[0]} has no frontend/*.jar" if folders else "there is no package ts"
    raise OperatorError(f"TorchServe is not installed ({where}); install it with: pip install torchserve")


def frontend_command(
    java: Java, config: ServerConfig, model_store: Path, *, log_config: Path = LOG_CONFIG, temporary: Path | None = None
) -> list[str]:
    """Return the command line TorchServe's own launcher would run.

    Args:
        java: The Java to run.
        config: The configuration; its vmargs come last, so they win.
        model_store: Folder of the .mar files.
        log_config: log4j2 configuration.
        temporary: Java's temporary folder, where it is not /tmp.
    """
    package = torchserve_folder()
    class_path = f"{package / 'frontend'}/*"
    plugins = config.values.get("plugins_path")
    if plugins:
        class_path += f":{plugins}" + ("" if "*" in plugins else "/*")
    return [
        str(java.executable),
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={log_config.resolve().as_uri()}",
        *([f"-Djava.io.tmpdir={temporary}"] if temporary else []),
        *(_QUIET_OPTIONS if java.version >= 24 else ()),
        *config.vmargs,
        "-cp",
        class_path,
        _MAIN_CLASS,
        "--python",
        sys.executable,
        "-f",
        str(config.path.resolve()),
        "-s",
        str(model_store.resolve()),
        "-ncs",
    ]


class Frontend:
    """A running frontend and the workers it starts.

    The kernel kills it when the thread that started it ends, however that ends: start it from a thread that lives as
    long as the server. Leaving the context kills whatever is left.
    """

    def __init__(self, command: Sequence[str], *, working_folder: Path, environ: Mapping[str, str]) -> None:
        self._is_gone = False
        try:
            self._process = subprocess.Popen(
                list(command),
                cwd=working_folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        except OSError as error:
            raise OperatorError(f"cannot start {command[0]}: {error.strerror or error}") from error

    def __enter__(self) -> Frontend:  # noqa: PYI034 (typing.Self needs Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id of Java, and of the group its workers belong to."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return Java's exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until Java ends and return its exit code; 128 + N where signal N ended it."""
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def stop(self, grace_s: float) -> None:
        """Ask Java to end, wait for it at most `grace_s` seconds, then kill what is left of it and of its workers."""
        with _orphans_adopted():
            if self._process.poll() is None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace_s)
            self.kill()

    def kill(self) -> None:
        """Kill Java and every process of its group, and wait until they are gone."""
        if self._is_gone:
            return
        deadline = time.monotonic() + _GROUP_SECONDS
        with _orphans_adopted(), contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.pid, signal.SIGKILL)
                if self._process.poll() is not None:
                    _reap(self.pid)
                time.sleep(0.02)
        self._process.wait()
        self._is_gone = True


def _die_with(parent: int) -> Callable[[], None]:
    """Return what the child does before it becomes Java: ask the kernel to kill it when its parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask


@contextlib.contextmanager
def _orphans_adopted() -> Iterator[None]:
    """Let what our children leave behind be ours to collect, not the first process's, which may be slow to or never do.

    prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = ctypes.c_int()
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def _reap(group: int) -> None:
    """Collect dead workers: those that Java left to us, as it leaves all where we are a container's first process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
