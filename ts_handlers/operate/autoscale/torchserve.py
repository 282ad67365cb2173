"""TorchServe's management API and metrics, as far as scaling workers needs them."""

from __future__ import annotations

import re
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ts_handlers.errors import OperatorError
from ts_handlers.operate.autoscale.http import Answer, NoAnswerError, send
from ts_handlers.operate.autoscale.settings import TorchServeSettings
from ts_handlers.reading import load_json

_REFUSED = (400, 401, 403)
"""TorchServe answers 400 where a token is wrong or has expired."""


_WORKER_NAME = re.compile(r"W-(?P<port>\d+)-(?P<model>.*)_[^_]*")


class TorchServeError(OperatorError):
    """TorchServe does not answer, or not what was asked."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, in TorchServe's order: it removes the last one first.

    Attributes:
        name: The number of its socket.
        pid: Its process, as TorchServe numbers it; -1 while there is none.
        is_ready: Whether it has its model; TorchServe calls every other state UNLOADING.
        memory_bytes: Its resident memory, which TorchServe measures once a minute; 0 until then.
    """

    name: str
    pid: int
    is_ready: bool
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The default version of one model.

    Attributes:
        workers: Its workers.
        queued: Requests in its queue.
        queue_left: Requests that the queue still takes.
        startup_timeout_s: How long a worker may take to load.
    """

    workers: tuple[Worker, ...]
    queued: int
    queue_left: int
    startup_timeout_s: float

    @property
    def num_ready(self) -> int:
        """Workers that serve."""
        return sum(worker.is_ready for worker in self.workers)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the metrics have counted since the server started.

    Attributes:
        requests: Requests of each model, refused ones included.
        latency_s: Summed seconds from arrival to answer, by model.
        queue_s: Summed seconds in the queue, by model.
        failures: Answers 5xx of the whole server.
        load_time_s: How long the newest worker of each model took to load.
    """

    requests: Mapping[str, float]
    latency_s: Mapping[str, float]
    queue_s: Mapping[str, float]
    failures: float
    load_time_s: Mapping[str, float]


class TorchServe:
    """A client of one server. Its token is read from the key file for every request, and renewed when it has expired."""

    def __init__(self, settings: TorchServeSettings) -> None:
        self._settings = settings
        self._url = settings.management_url.rstrip("/")
        self._key_file = None if settings.key_file is None else Path(settings.key_file)
        self._context = _own_server_context()

    def status(self, model: str) -> ModelStatus:
        """Return a model's workers and queue.

        Raises:
            TorchServeError: No answer, or no such model.
        """
        described = self._described(self._manage("GET", f"/models/{_quoted(model)}"), model)
        try:
            workers = tuple(
                Worker(str(each["id"]), int(each["pid"]), each["status"] == "READY", int(each.get("memoryUsage") or 0))
                for each in described["workers"]
            )
            queue = described["jobQueueStatus"]
            timeout_s = float(described.get("startupTimeout", 120))
            return ModelStatus(workers, int(queue["pendingRequests"]), int(queue["remainingCapacity"]), timeout_s)
        except (KeyError, TypeError, ValueError) as error:
            raise TorchServeError(f"TorchServe describes {model} in a way that is not known: {error!r}") from error

    def describe_by_worker(self, model: str, headers: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
        """Return what some worker of the model says of itself; empty where its handler says nothing.

        Raises:
            TorchServeError: No answer, or no worker that took the request.
        """
        answer = self._manage("GET", f"/models/{_quoted(model)}?customized=true", headers, timeout_s)
        said = self._described(answer, model).get("customizedMetadata")
        return said if isinstance(said, Mapping) else {}

    def scale(self, model: str, num_workers: int) -> None:
        """Ask for so many workers; new ones are started without waiting for them.

        Raises:
            TorchServeError: No answer, or a refusal.
        """
        path = f"/models/{_quoted(model)}?min_worker={num_workers}&max_worker={num_workers}&synchronous=false"
        answer = self._manage("PUT", path)
        if answer.status not in (200, 202):
            raise TorchServeError(
                f"TorchServe refuses {num_workers} workers for {model}: status {answer.status}, {answer.message()}"
            )

    def counters(self) -> Counters:
        """Return what the metrics say.

        Raises:
            TorchServeError: No answer, or metrics that cannot be read.
        """
        try:
            answer = send("GET", self._settings.metrics_url, timeout_s=self._settings.timeout_s, context=self._context)
        except NoAnswerError as error:
            raise TorchServeError(f"TorchServe's metrics: {error}") from error
        if answer.status != 200:
            raise TorchServeError(f"TorchServe's metrics: status {answer.status} at {self._settings.metrics_url}")
        try:
            return parse_counters(answer.body.decode("utf-8", "replace"))
        except ValueError as error:
            raise TorchServeError(f"TorchServe's metrics are not in Prometheus' format: {error}") from error

    def _described(self, answer: Answer, model: str) -> Mapping[str, Any]:
        if answer.status == 404:
            raise TorchServeError(f"TorchServe has no model {model}; models: in the configuration names it")
        if answer.status != 200:
            raise TorchServeError(f"TorchServe does not describe {model}: status {answer.status}, {answer.message()}")
        try:
            described = answer.json()
        except NoAnswerError as error:
            raise TorchServeError(f"TorchServe does not describe {model}: {error}") from error
        if not isinstance(described, list) or not described or not isinstance(described[0], Mapping):
            raise TorchServeError(f"TorchServe describes {model} in a way that is not known: {described!r}")
        return described[0]

    def _manage(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """Send one request to the management API; once more with a new token where the old one was refused."""
        answer = self._send(method, path, {**self._authorization("management"), **(headers or {})}, timeout_s)
        if answer.status in _REFUSED and self._key_file is not None:
            self._send("GET", "/token?type=management", self._authorization("API"))
            answer = self._send(method, path, {**self._authorization("management"), **(headers or {})}, timeout_s)
        return answer

    def _send(self, method: str, path: str, headers: Mapping[str, str], timeout_s: float | None = None) -> Answer:
        limit_s = timeout_s or self._settings.timeout_s
        try:
            return send(method, f"{self._url}{path}", timeout_s=limit_s, headers=headers, context=self._context)
        except NoAnswerError as error:
            raise TorchServeError(f"TorchServe's management API: {error}") from error

    def _authorization(self, name: str) -> dict[str, str]:
        if self._key_file is None:
            return {}
        try:
            key = load_json(self._key_file)[name]["key"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TorchServeError(f"no token of TorchServe in {self._key_file}: {reason}") from error
        return {"Authorization": f"Bearer {key}"}


def parse_counters(text: str) -> Counters:
    """Read TorchServe's metrics.

    Raises:
        ValueError: They are not in Prometheus' text format.
    """
    requests: dict[str, float] = {}
    latency_s: dict[str, float] = {}
    queue_s: dict[str, float] = {}
    newest: dict[str, tuple[int, float]] = {}
    failures = 0.0
    sums = {
        "ts_inference_requests_total": (requests, 1.0),  # the parser gives every counter this suffix
        "ts_inference_latency_microseconds_total": (latency_s, 1e-6),
        "ts_queue_latency_microseconds_total": (queue_s, 1e-6),
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in sums:
                totals, unit = sums[sample.name]
                model = sample.labels.get("model_name", "")
                totals[model] = totals.get(model, 0.0) + sample.value * unit
            elif sample.name == "Requests5XX_total":
                failures += sample.value
            elif sample.name == "WorkerLoadTime":
                match = _WORKER_NAME.fullmatch(sample.labels.get("WorkerName", ""))
                if match:
                    latest = (int(match["port"]), sample.value / 1000)
                    newest[match["model"]] = max(newest.get(match["model"], latest), latest)
    load_time_s = {model: seconds for model, (_, seconds) in newest.items()}
    return Counters(requests, latency_s, queue_s, failures, load_time_s)


def _quoted(model: str) -> str:
    return urllib.parse.quote(model, safe="")


def _own_server_context() -> ssl.SSLContext:
    """Trust any certificate: the server is on this machine, and its own is self-signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
