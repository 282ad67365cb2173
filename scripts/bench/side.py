"""A side of a benchmark: something that is made once, then started for each block of load and ended after it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prometheus_client.parser import text_string_to_metric_families

from bench.process import BenchError, Child, cpu_time

START_SECONDS = 300.0
TIMEOUT_SECONDS = 120.0

Send = Callable[[float], Mapping[str, Any]]
"""Works for so many seconds; returns what `ts-handlers bench --json` calls its result."""


@dataclass(frozen=True, slots=True)
class Served:
    """A side that is ready.

    Attributes:
        pid: The process the others descend from: what they use is charged to the side.
        url: Where to POST a prediction.
        metrics_url: Where its metrics are; None where it has none.
        management_url: TorchServe's management API.
        start_s: From the start of its process until every worker was ready.
        start_cpu_s: CPU time until then.
        send: Works without a server; None: the load generator sends to `url`.
    """

    pid: int
    url: str = ""
    metrics_url: str | None = None
    management_url: str | None = None
    start_s: float = 0.0
    start_cpu_s: float = 0.0
    send: Send | None = None

    def predict(self, body: bytes, content_type: str) -> Any:
        """Return the answer to one body: the JSON value, or the text where it is none, as the stock example's label.

        Raises:
            OSError: Nobody answers, or not with 2xx.
        """
        request = urllib.request.Request(self.url, data=body, headers={"Content-Type": content_type})  # noqa: S310  # loopback
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            text = response.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def counted(self) -> Counter[str]:
        """Return what its metrics have counted, each summed over its time series; nothing without metrics."""
        if self.metrics_url is None:
            return Counter()
        with urllib.request.urlopen(self.metrics_url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return counters(response.read().decode())


class Side(Protocol):
    """One of the things compared."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    def prepare(self) -> None:
        """Make what it needs; may take minutes."""

    def serve(self) -> AbstractContextManager[Served]:
        """Start it afresh, and end it on leaving."""


def counters(text: str) -> Counter[str]:
    """Read Prometheus' text: the sum of each metric over its time series."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] += sample.value  # type: ignore[assignment]  # a Counter of floats
    return found


@contextmanager
def started(
    command: Sequence[str | Path],
    folder: Path,
    env: Mapping[str, str],
    is_ready: Callable[[], bool],
    urls: Mapping[str, str],
) -> Iterator[Served]:
    """Run a server in a folder while the block runs.

    Args:
        command: The process to start.
        folder: Its working folder and place of its log.
        env: Its environment.
        is_ready: Asked until it is; an OSError means not yet.
        urls: `url`, `metrics_url` and `management_url` of what is served, those that there are.

    Raises:
        BenchError: The server ends while it starts, or is not ready in time.
    """
    begun = time.monotonic()
    with Child(command, log=folder / "server.log", env=env, cwd=folder) as child:
        while not _is_ready(is_ready):
            seconds = time.monotonic() - begun
            if child.exit_code is not None or seconds > START_SECONDS:
                what = "ended while starting" if child.exit_code is not None else "is not ready"
                raise BenchError(f"the server {what}, after {seconds:.0f} s: {command[0]}\n{child.tail()}")
            time.sleep(0.1)
        start_s, start_cpu_s = time.monotonic() - begun, cpu_time(child.pid).all_s
        yield Served(child.pid, urls["url"], urls.get("metrics_url"), urls.get("management_url"), start_s, start_cpu_s)


def describe(management_url: str, model: str) -> Mapping[str, Any]:
    """Return what TorchServe's management API says of a model.

    Raises:
        OSError: It does not answer yet.
    """
    with urllib.request.urlopen(f"{management_url}/models/{model}", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        described: Mapping[str, Any] = json.loads(response.read())[0]
        return described


def num_ready(described: Mapping[str, Any]) -> int:
    """Return how many workers are ready."""
    return sum(worker["status"] == "READY" for worker in described["workers"])


def _is_ready(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except (OSError, http.client.HTTPException):
        return False
