"""`ts-handlers serve` as a child of a program: for quickstarts, measurements and tests."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.client import RUN_FOLDER, Api, TorchServe
from ts_handlers.operate.torchserve.config import CONFIG_NAME, ServerConfig, read_config
from ts_handlers.operate.torchserve.process.frontend import STOP_GRACE_S
from ts_handlers.operate.torchserve.process.readiness import READY, WorkerFailedError

_POLL_S = 0.05


class BackgroundServer:
    """A server on a configured folder; a context manager that yields it ready and stops it.

    Its output goes to `console.log` in the run folder.

    Args:
        directory: Folder of the .mar files, configured.
        config: Its config.properties; by default the folder's own.
        run_dir: Where tokens and logs are written; by default `run` in the folder.
        options: More options of `ts-handlers serve`.
        environ: The environment; by default this process's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: Path | None = None,
        run_dir: Path | None = None,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        path = config or directory / CONFIG_NAME
        self._environ = dict(os.environ if environ is None else environ)
        self.config: ServerConfig = read_config(path, self._environ, model_store=directory)
        self.run_dir = run_dir or directory / RUN_FOLDER
        self.console_log = self.run_dir / "console.log"
        self._command = [sys.executable, "-m", "ts_handlers.cli", "serve", str(directory), "--config", str(path)]
        self._command += ["--run-dir", str(self.run_dir), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BackgroundServer:  # noqa: PYI034 (typing.Self needs Python 3.11)
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of `ts-handlers serve`.

        Raises:
            OperatorError: It was not started.
        """
        return self._started().pid

    @property
    def inference_url(self) -> str:
        """Base URL of the inference API."""
        return self.config.inference.url

    @property
    def client(self) -> TorchServe:
        """A client of its management and metrics APIs."""
        return TorchServe.of(self.config, self.run_dir)

    def token(self, api: Api = "inference") -> str | None:
        """Return the token of an API; None where the server asks for none."""
        return self.client.token(api)

    def start(self) -> None:
        """Start the server without waiting for it."""
        self.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.console_log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_ready(self, timeout_s: float = math.inf, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the line that says every worker is ready.

        Args:
            timeout_s: Seconds to wait at most.
            check: Called between two looks; ends the wait by raising something.

        Raises:
            WorkerFailedError: The server ended before (holds the end of its output), or is not ready in time.
        """
        process = self._started()
        deadline = time.monotonic() + timeout_s
        while not any(line.startswith(f"{READY} ") for line in self._output()):
            if process.poll() is not None:
                raise WorkerFailedError(
                    f"the server ended with code {process.returncode}: {' / '.join(self._output()[-3:])}"
                )
            if time.monotonic() > deadline:
                raise WorkerFailedError(f"the server is not ready after {timeout_s:.0f} s; see {self.console_log}")
            check()
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the server ends by itself, and return its exit code."""
        return self._started().wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the server to end, wait until it has, and return its exit code."""
        process = self._started()
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(2 * STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise OperatorError("the server was not started; call start() first")
        return self._process

    def _output(self) -> list[str]:
        return self.console_log.read_text(encoding="utf-8", errors="replace").splitlines()
