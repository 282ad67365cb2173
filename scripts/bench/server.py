"""A TorchServe under test, whoever built it: its own folder, its own ports on the loopback, ready or an error."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from bench.process import BenchError, Child, wait_until
from ts_handlers.operate.load.payloads import TEXT_PLAIN
from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.client import TorchServe
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.readiness import WorkerWatch

TS_HANDLERS = (sys.executable, "-m", "ts_handlers.cli")
"""The command line of this environment."""

START_SECONDS = 240.0

_THREAD_ENV = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME")


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started.

    Attributes:
        model: The model it serves, and how many workers it starts.
        command: The process to start; its tree is the server.
        inference: Where it will answer.
        management: Where it will say which workers are ready; asks for no token.
        folder: Its working folder: logs and temporary files (worker sockets among them) go here.
        env: Its environment.
        probe: A text it can answer, asked once its workers are there.
    """

    model: ConfiguredModel
    command: Sequence[str | Path]
    inference: Address
    management: Address
    folder: Path
    env: Mapping[str, str]
    probe: str = "ready?"


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
        return f"{self._launch.inference.url}{self._path}"

    @property
    def pid(self) -> int:
        """The process the others descend from."""
        return self._child.pid

    def cpu_seconds(self) -> float:
        """CPU its processes have used so far."""
        return self._child.cpu_seconds()

    def predict(self, text: str, timeout_seconds: float = 30.0) -> Any:
        """Return the answer to one text: the JSON value, or the body where it is none."""
        address = self._launch.inference
        connection = http.client.HTTPConnection(address.reachable_host, address.port, timeout=timeout_seconds)
        try:
            connection.request("POST", self._path, body=text.encode(), headers={"Content-Type": TEXT_PLAIN})
            response = connection.getresponse()
            status, body = response.status, response.read().decode()
        finally:
            connection.close()
        if status != 200:
            raise BenchError(f"{self.url}: status {status} for {text!r}: {body[:300]}; its log is {self.log}")
        try:
            return json.loads(body)
        except ValueError:
            return body

    @property
    def _path(self) -> str:
        return f"/predictions/{self._launch.model.name}"

    def _wait_ready(self) -> None:
        name, logs = self._launch.model.name, self._launch.folder / "logs"
        client = TorchServe(self._launch.management.url)
        watch = WorkerWatch(client, logs / "model_log.log", logs / "ts_log.log")
        deadline = time.monotonic() + START_SECONDS
        while not watch.is_ready(self._launch.model):
            if self._child.exit_code is not None:
                raise BenchError(f"{name}: the server ended while starting\n{self._child.tail()}")
            if not wait_until(deadline):
                raise BenchError(f"{name}: not ready after {START_SECONDS:.0f} s\n{self._child.tail()}")
        self.predict(self._launch.probe)


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
