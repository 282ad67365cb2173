"""Wait until every worker of every model is ready, and notice at once when one will never be."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ts_handlers.errors import OperatorError
from ts_handlers.operate.server_config import Address, ConfiguredModel, ServerConfig
from ts_handlers.reading import load_json, parse_json

KEY_FILE_NAME = "key_file.json"

PROCESS_START_S = 150
"""How long Java may take to start, and a worker to answer it (TorchServe's own limit for that is 120 s)."""

MAX_DEATHS = 2
"""A worker that died so often while loading is given up: TorchServe itself tries for five minutes."""

_POLL_S = 0.1
_HTTP_TIMEOUT_S = 10.0
_EXCERPT_BYTES = 256 * 1024


class WorkerFailedError(OperatorError):
    """A model that cannot be loaded, or a frontend that ended before it was."""


class ManagementClient:
    """The management API of a server of ours, with the token it wrote.

    Args:
        address: Where the management API listens.
        key_file: The key_file.json of the running server; None where it asks for no token.
        timeout_s: How long one answer may take.
    """

    def __init__(self, address: Address, key_file: Path | None, *, timeout_s: float = _HTTP_TIMEOUT_S) -> None:
        self._address = address
        self._key_file = key_file
        self._timeout_s = timeout_s

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and JSON body of a GET; status 0 while nobody answers or there is no token yet."""
        try:
            headers = self._headers()
            connection = self._connect()
            try:
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                return response.status, parse_json(response.read() or b"null")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return 0, None

    def _headers(self) -> dict[str, str]:
        if self._key_file is None:
            return {}
        keys = load_json(self._key_file)
        return {"Authorization": f"Bearer {keys['management']['key']}"}

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.reachable_host, self._address.port
        if self._address.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        context = ssl.create_default_context()
        context.check_hostname = False  # TorchServe's own certificate is self-signed, and this is our own child
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)


@dataclass
class WorkerWatch:
    """What was seen of one server's workers.

    Attributes:
        client: The management API.
        model_log: The workers' log.
        server_log: The server's log.
        log_offsets: Size of each log before the server started: what is older is another run's.
        deaths: Process ids of workers that died before they were ready, by socket number.
        last_status: Status of the last answer; 0 for none.
        longest_batch_delay_ms: Longest maxBatchDelay of the models seen so far.
    """

    client: ManagementClient
    model_log: Path
    server_log: Path
    log_offsets: dict[Path, int] = field(default_factory=dict)
    deaths: dict[str, set[int]] = field(default_factory=dict)
    last_status: int = 0
    longest_batch_delay_ms: int = 0

    def __post_init__(self) -> None:
        for log in (self.model_log, self.server_log):
            self.log_offsets[log] = log.stat().st_size if log.exists() else 0

    def is_ready(self, model: ConfiguredModel) -> bool:
        """Say whether a model has all its workers.

        Raises:
            WorkerFailedError: The model was not registered, or a worker keeps dying.
        """
        self.last_status, answer = self.client.get(f"/models/{model.name}/{model.version}")
        if self.last_status == 404:
            reason = self._excerpt(self.server_log, r"Failed to load model|Exception: ")
            raise WorkerFailedError(
                f"TorchServe did not take {model.name} {model.version}: {reason}; see {self.server_log}"
            )
        if self.last_status != 200:
            return False
        self.longest_batch_delay_ms = max(self.longest_batch_delay_ms, answer[0].get("maxBatchDelay", 0))
        workers = answer[0]["workers"]
        num_ready = 0
        for worker in workers:
            if worker["status"] == "READY":
                num_ready += 1
            else:
                self._count_death(model, worker)
        return num_ready >= model.min_workers

    def _count_death(self, model: ConfiguredModel, worker: dict[str, Any]) -> None:
        pid, number = worker["pid"], worker["id"]
        if pid <= 0 or psutil.pid_exists(pid):
            return
        deaths = self.deaths.setdefault(number, set())
        deaths.add(pid)
        if len(deaths) >= MAX_DEATHS:
            reason = self._excerpt(self.model_log, rf" W-{number}-.* - (?:\w+\.)*\w*(?:Error|Exception|Exit)\b")
            raise WorkerFailedError(
                f"worker {number} of {model.name} {model.version} died {len(deaths)} times while loading: {reason}; "
                f"see {self.model_log}"
            )

    def _excerpt(self, log: Path, pattern: str) -> str:
        """Return the first message of this run that matches: in a chain of exceptions it is the cause."""
        try:
            with log.open("rb") as file:
                file.seek(self.log_offsets[log])
                lines = file.read(_EXCERPT_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            if re.search(pattern, line):
                return line.split(" - ", 1)[-1].strip()
        return "no reason was logged"


def wait_ready(config: ServerConfig, watch: WorkerWatch, is_running: Callable[[], bool]) -> float:
    """Wait until every model of the configuration has all its workers; return the seconds it took.

    Raises:
        WorkerFailedError: The frontend ended, a model was refused, a worker keeps dying, or the longest
            startupTimeout has passed.
    """
    start = time.monotonic()
    limit_s = max(model.startup_timeout_s for model in config.models) + PROCESS_START_S
    waiting = list(config.models)
    while True:
        waiting = [model for model in waiting if not watch.is_ready(model)]
        seconds = time.monotonic() - start
        if not waiting:
            return seconds
        if not is_running():
            raise WorkerFailedError(f"TorchServe ended before it was ready; see {watch.server_log}")
        if seconds > limit_s:
            names = ", ".join(f"{model.name} {model.version}" for model in waiting)
            raise WorkerFailedError(
                f"not ready after {seconds:.0f} s: {names} (last answer of the management API: {watch.last_status}); "
                f"see {watch.model_log} and {watch.server_log}"
            )
        time.sleep(_POLL_S)
