"""A TorchServe under test, whoever built it: its own folder, its own ports on the loopback, ready or an error."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from bench.process import BenchError, Child, wait_until

START_SECONDS = 240.0
MIN_JAVA = 17

_THREAD_ENV = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME")


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports of one TorchServe; worker sockets are numbered from `first_worker` on."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int
    first_worker: int

    @classmethod
    def free(cls) -> Ports:
        """Ask the kernel for ports nobody listens on now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(6)]
            for item in sockets:
                item.bind(("127.0.0.1", 0))
            return cls(*(int(item.getsockname()[1]) for item in sockets))

    def properties(self) -> dict[str, str]:
        """Return the config.properties keys that keep two servers on one machine apart, and token checks off."""
        return {
            "inference_address": f"http://127.0.0.1:{self.inference}",
            "management_address": f"http://127.0.0.1:{self.management}",
            "metrics_address": f"http://127.0.0.1:{self.metrics}",
            "grpc_inference_port": str(self.grpc_inference),
            "grpc_management_port": str(self.grpc_management),
            "initial_worker_port": str(self.first_worker),
            "disable_token_authorization": "true",
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started.

    Attributes:
        model: Name the model is served by.
        command: The process to start; its tree is the server.
        ports: Where it will listen.
        folder: Its working folder: logs and temporary files (worker sockets among them) go here.
        env: Its environment.
    """

    model: str
    command: Sequence[str | Path]
    ports: Ports
    folder: Path
    env: Mapping[str, str]


class Side(Protocol):
    """One of the things compared: it knows how to become ready to launch, and what to say of itself."""

    name: str

    def prepare(self) -> None:
        """Make environments and archives. May take minutes, once."""

    def launch(self) -> Launch:
        """Write the configuration of a fresh server and say how to start it."""

    def describe(self) -> dict[str, str]:
        """Return what a reader of the results must know of this side."""


class Server:
    """A running server; leaving the `with` stops it and all its processes."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.log = launch.folder / "server.log"
        self._child = Child(launch.command, log=self.log, env=launch.env, cwd=launch.folder)

    def __enter__(self) -> Server:  # noqa: PYI034  # typing.Self needs Python 3.11
        self._child.__enter__()
        try:
            self._wait_ready()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Where to POST a prediction."""
        return f"http://127.0.0.1:{self._launch.ports.inference}/predictions/{self._launch.model}"

    def cpu_seconds(self) -> float:
        """CPU its processes have used so far."""
        return self._child.cpu_seconds()

    def predict(self, text: str, timeout_seconds: float = 30.0) -> Any:
        """Return the answer to one text: the JSON value, or the body where it is none."""
        ports, path = self._launch.ports, f"/predictions/{self._launch.model}"
        status, body = _request(ports.inference, "POST", path, body=text.encode(), timeout_seconds=timeout_seconds)
        if status != 200:
            raise BenchError(f"{self._launch.model}: status {status} for {text!r}: {body[:300]}; its log is {self.log}")
        try:
            return json.loads(body)
        except ValueError:
            return body

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._workers_ready():
            if self._child.exit_code is not None:
                raise BenchError(f"{self._launch.model}: the server ended while starting\n{self._child.tail()}")
            if not wait_until(deadline):
                raise BenchError(f"{self._launch.model}: no worker after {START_SECONDS:.0f} s\n{self._child.tail()}")
        self.predict("ready?")

    def _workers_ready(self) -> bool:
        try:
            status, body = _request(self._launch.ports.management, "GET", f"/models/{self._launch.model}")
        except (OSError, http.client.HTTPException):
            return False
        if status != 200:
            return False
        described = json.loads(body)[0]
        ready = [worker for worker in described["workers"] if worker["status"] == "READY"]
        return len(ready) >= max(1, int(described["minWorkers"]))


def _request(
    port: int, method: str, path: str, *, body: bytes | None = None, timeout_seconds: float = 5.0
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": "text/plain; charset=utf-8"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def fresh_folder(folder: Path) -> Path:
    """Return `folder`, emptied, with a `tmp` in it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    return folder


def clean_env(folder: Path | None = None, **extra: str) -> dict[str, str]:
    """Return this environment without thread limits or a Python of its own; temporary files go to `folder`/tmp."""
    dropped = {*_THREAD_ENV, "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TS_CONFIG_FILE", "LOG_LOCATION"}
    env = {key: value for key, value in os.environ.items() if key not in dropped}
    env |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if folder is not None:
        env |= {"TEMP": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
    return env | extra


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")


def find_java_home() -> Path | None:
    """Return the home of a Java that TorchServe runs on (JAVA_HOME, then PATH), or None."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    found = shutil.which("java")
    if found:
        homes.append(Path(found).resolve().parents[1])
    return next((home for home in homes if java_version(home) >= MIN_JAVA), None)


def java_version(home: Path) -> int:
    """Return the major version of the Java in `home`, 0 if there is none."""
    try:
        done = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(rb'version "(\d+)', done.stderr)
    return int(match.group(1)) if match else 0
