"""The one client of TorchServe's management and metrics APIs. Its token is renewed when the server refuses it."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ts_handlers.config.reading import load_json
from ts_handlers.errors import OperatorError
from ts_handlers.operate.http import Answer, NoAnswerError, send
from ts_handlers.operate.torchserve.config import ServerConfig

if TYPE_CHECKING:
    from ts_handlers.operate.torchserve.metrics import Counters

KEY_FILE_NAME = "key_file.json"
"""What TorchServe writes its tokens to, in its working folder."""

RUN_FOLDER = "run"
"""The working folder that `ts-handlers serve` gives it, beside its configuration."""

TIMEOUT_S = 10.0

T = TypeVar("T")

Api = Literal["management", "inference"]
"""The APIs that have a token each, which expires. The key called API, with which they are renewed, does not."""

_REFUSAL = "InvalidKeyException"


class TorchServeError(OperatorError):
    """TorchServe does not answer, or not what was asked.

    Attributes:
        status: The status of its answer; 0 for none.
        kind: The class of error that the answer names.
    """

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


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
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One version of one model.

    Attributes:
        workers: Its workers.
        queued: Requests in its queue.
        queue_left: Requests that the queue still takes.
        startup_timeout_s: How long a worker may take to load.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
    """

    workers: tuple[Worker, ...]
    queued: int
    queue_left: int
    startup_timeout_s: float
    max_batch_delay_ms: int = 0

    @property
    def num_ready(self) -> int:
        """Workers that serve."""
        return sum(worker.is_ready for worker in self.workers)


class TorchServe:
    """A client of one server on this machine.

    Args:
        management_url: Base URL of the management API.
        key_file: The key_file.json of the running server, read for every request; None where it asks for no token.
        metrics_url: URL of the Prometheus metrics; empty where nobody asks for them.
        timeout_s: How long one answer may take.
    """

    def __init__(
        self, management_url: str, key_file: Path | None = None, *, metrics_url: str = "", timeout_s: float = TIMEOUT_S
    ) -> None:
        self._url = management_url.rstrip("/")
        self._metrics_url = metrics_url
        self._key_file = key_file
        self._timeout_s = timeout_s
        self._context = _own_server_context()

    @classmethod
    def of(cls, config: ServerConfig, run_dir: Path | None = None, *, timeout_s: float = TIMEOUT_S) -> TorchServe:
        """Return a client of the server with this configuration.

        Args:
            config: Its configuration.
            run_dir: Its working folder, where its tokens are; None for `run` beside its configuration, as `serve` has it.
            timeout_s: How long one answer may take.

        Raises:
            ConfigError: One of its addresses is none of TCP.
        """
        folder = config.path.parent / RUN_FOLDER if run_dir is None else run_dir
        metrics = config.metrics
        return cls(
            config.management.url,
            folder / KEY_FILE_NAME if config.is_token_required else None,
            metrics_url=f"{metrics.url}/metrics" if metrics else "",
            timeout_s=timeout_s,
        )

    def status(self, model: str, version: str | None = None) -> ModelStatus:
        """Return a model's workers and queue.

        Args:
            model: Its name.
            version: Its version; None for the default one.

        Raises:
            TorchServeError: No answer, or no such model (status 404).
        """
        path = f"/models/{_quoted(model)}" + (f"/{_quoted(version)}" if version else "")
        return self._describe(path, _model_status)

    def describe_by_worker(self, model: str, headers: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
        """Return what some worker of the model says of itself; empty where its handler says nothing.

        Raises:
            TorchServeError: No answer, or no worker that took the request.
        """
        path = f"/models/{_quoted(model)}?customized=true"
        said = self._describe(path, lambda model: model.get("customizedMetadata"), headers, timeout_s)
        return said if isinstance(said, Mapping) else {}

    def scale(self, model: str, num_workers: int) -> None:
        """Ask for so many workers; new ones are started without waiting for them.

        Raises:
            TorchServeError: No answer, or a refusal.
        """
        self._manage(
            "PUT", f"/models/{_quoted(model)}?min_worker={num_workers}&max_worker={num_workers}&synchronous=false"
        )

    def counters(self) -> Counters:
        """Return what the metrics say; prometheus_client reads them.

        Raises:
            TorchServeError: No answer, or metrics that cannot be read.
        """
        from ts_handlers.operate.torchserve.metrics import parse_counters  # serve, ready, drain do without

        answer = self._send("metrics", "GET", self._metrics_url)
        try:
            return parse_counters(answer.body.decode("utf-8", "replace"))
        except ValueError as error:
            raise TorchServeError(f"TorchServe's metrics are not in Prometheus' format: {error}") from error

    def token(self, api: Api = "management") -> str | None:
        """Return the token that an API's clients send now; None where the server asks for none.

        Raises:
            TorchServeError: There is no key file yet, or none in it.
        """
        return None if self._key_file is None else read_key(self._key_file, api)

    def renew(self, api: Api = "management") -> None:
        """Let the server make a new token for an API, and write it to the key file. The old one ends.

        Raises:
            TorchServeError: It does not.
        """
        if self._key_file is None:
            return
        try:
            url = f"{self._url}/token?type={api}"
            self._send("management API", "GET", url, _bearer(read_key(self._key_file, "API")))
        except TorchServeError as error:
            raise TorchServeError(f"{error}; is {self._key_file} of the server that runs?") from error

    def _describe(
        self,
        path: str,
        read: Callable[[Mapping[str, Any]], T],
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        answer = self._manage("GET", path, headers, timeout_s)
        try:
            return read(answer.json()[0])
        except (NoAnswerError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise TorchServeError(f"TorchServe answers GET {path} in a way that is not known: {error!r}") from error

    def _manage(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """Send one request to the management API; once more where its token was refused.

        Then the key file is read again: somebody else may have had the token renewed. If nobody has, this does.
        """
        url, token = f"{self._url}{path}", self.token()
        try:
            return self._send("management API", method, url, {**_bearer(token), **(headers or {})}, timeout_s)
        except TorchServeError as error:
            if token is None or error.kind != _REFUSAL:
                raise
        if self.token() == token:
            self.renew()
        return self._send("management API", method, url, {**_bearer(self.token()), **(headers or {})}, timeout_s)

    def _send(
        self,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        try:
            answer = send(method, url, timeout_s=timeout_s or self._timeout_s, headers=headers, context=self._context)
        except NoAnswerError as error:
            raise TorchServeError(f"TorchServe's {what}: {error}") from error
        if answer.status not in (200, 202):
            kind, said = answer.error()
            text = f"TorchServe's {what}: status {answer.status} for {method} {url}: {said}"
            raise TorchServeError(text, answer.status, kind)
        return answer


def read_key(file: Path, name: str) -> str:
    """Return a token of a key_file.json: that of an API, or the one called API that renews them.

    Raises:
        TorchServeError: There is none.
    """
    try:
        return str(load_json(file)[name]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise TorchServeError(
            f"no token of TorchServe in {file}: {reason}; TorchServe writes its key_file.json into its working folder "
            "(DIR/run with `ts-handlers serve DIR`)"
        ) from error


def _model_status(model: Mapping[str, Any]) -> ModelStatus:
    queue = model["jobQueueStatus"]
    return ModelStatus(
        workers=tuple(
            Worker(str(each["id"]), int(each["pid"]), each["status"] == "READY", int(each.get("memoryUsage") or 0))
            for each in model["workers"]
        ),
        queued=int(queue["pendingRequests"]),
        queue_left=int(queue["remainingCapacity"]),
        startup_timeout_s=float(model["startupTimeout"]),
        max_batch_delay_ms=int(model["maxBatchDelay"]),
    )


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _quoted(model: str) -> str:
    return urllib.parse.quote(model, safe="")


def _own_server_context() -> ssl.SSLContext:
    """Trust any certificate: the server is on this machine, and its own is self-signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
