"""Wait until every worker of every model is ready, and notice at once when one will never be."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError, Worker
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.frontend import PROCESS_START_S

READY = "ready"
"""First word of the line that `ts-handlers serve` prints once every worker of every model is ready."""

MAX_DEATHS = 2
"""A worker that died so often while loading is given up: TorchServe itself tries for five minutes."""

_POLL_S = 0.1
_EXCERPT_BYTES = 256 * 1024


class WorkerFailedError(OperatorError):
    """A model that cannot be loaded, or a frontend that ended before it was."""


@dataclass
class WorkerWatch:
    """What was seen of one server's workers.

    Attributes:
        server: The server.
        model_log: The workers' log.
        server_log: The server's log.
        log_offsets: Size of each log before the server started: what is older is another run's.
        deaths: Process ids of workers that died before they were ready, by socket number.
        problem: What the server last said in place of a description; empty for nothing.
        longest_batch_delay_ms: Longest maxBatchDelay of the models seen so far.
    """

    server: TorchServe
    model_log: Path
    server_log: Path
    log_offsets: dict[Path, int] = field(default_factory=dict)
    deaths: dict[str, set[int]] = field(default_factory=dict)
    problem: str = ""
    longest_batch_delay_ms: int = 0

    def __post_init__(self) -> None:
        for log in (self.model_log, self.server_log):
            self.log_offsets[log] = log.stat().st_size if log.exists() else 0

    def is_ready(self, model: ConfiguredModel) -> bool:
        """Say whether a model has all its workers.

        Raises:
            WorkerFailedError: The model was not registered, or a worker keeps dying.
        """
        try:
            status = self.server.status(model.name, model.version)
        except TorchServeError as error:
            if error.status == 404:
                reason = self._excerpt(self.server_log, r"Failed to load model|Exception: ")
                raise WorkerFailedError(
                    f"TorchServe did not take {model.label}: {reason}; see {self.server_log}"
                ) from error
            self.problem = str(error)
            return False
        self.problem = ""
        self.longest_batch_delay_ms = max(self.longest_batch_delay_ms, status.max_batch_delay_ms)
        for worker in status.workers:
            if not worker.is_ready:
                self._count_death(model, worker)
        return status.num_ready >= model.workers

    def _count_death(self, model: ConfiguredModel, worker: Worker) -> None:
        if worker.pid <= 0 or psutil.pid_exists(worker.pid):
            return
        deaths = self.deaths.setdefault(worker.name, set())
        deaths.add(worker.pid)
        if len(deaths) >= MAX_DEATHS:
            reason = self._excerpt(self.model_log, rf" W-{worker.name}-.* - (?:\w+\.)*\w*(?:Error|Exception|Exit)\b")
            raise WorkerFailedError(
                f"worker {worker.name} of {model.label} died {len(deaths)} times while loading: {reason}; "
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


def wait_ready(models: Sequence[ConfiguredModel], watch: WorkerWatch, is_running: Callable[[], bool]) -> float:
    """Wait until every model has all its workers; return the seconds it took.

    Raises:
        WorkerFailedError: The frontend ended, a model was refused, a worker keeps dying, or the longest
            startupTimeout has passed.
    """
    start = time.monotonic()
    limit_s = max(model.startup_timeout_s for model in models) + PROCESS_START_S
    waiting = list(models)
    while True:
        waiting = [model for model in waiting if not watch.is_ready(model)]
        seconds = time.monotonic() - start
        if not waiting:
            return seconds
        if not is_running():
            raise WorkerFailedError(f"TorchServe ended before it was ready; see {watch.server_log}")
        if seconds > limit_s:
            names = ", ".join(model.label for model in waiting)
            raise WorkerFailedError(
                f"not ready after {seconds:.0f} s: {names} ({watch.problem or 'workers are still loading'}); "
                f"see {watch.model_log} and {watch.server_log}"
            )
        time.sleep(_POLL_S)
