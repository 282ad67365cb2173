"""What the client makes of answers; e2e/test_autoscale.py has a real TorchServe. This server only says what it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError

WORKERS = [
    {"id": "9000", "pid": 5, "status": "READY", "memoryUsage": 7},
    {"id": "9001", "pid": -1, "status": "UNLOADING"},
]
DESCRIBED = {
    "workers": WORKERS,
    "jobQueueStatus": {"pendingRequests": 3, "remainingCapacity": 97},
    "startupTimeout": 60,
    "maxBatchDelay": 1,
}


class Told(BaseHTTPRequestHandler):
    """Answers each path with what the test set, and notes each request and its token."""

    answers: dict[str, tuple[int, bytes]]
    seen: list[tuple[str, str | None]]

    def answer(self) -> None:
        self.seen.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
        status, body = self.answers.get(self.path.partition("?")[0], (404, b'{"message": "Model not found: x"}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture
def told() -> Iterator[type[Told]]:
    kind = type("Handler", (Told,), {"answers": {}, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def client(told: Any, key_file: Path | None = None) -> TorchServe:
    return TorchServe(told.url, key_file, metrics_url=f"{told.url}/metrics", timeout_s=5.0)


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_workers_and_queue_are_read(told: type[Told]) -> None:
    told.answers["/models/a%20b"] = (200, body([DESCRIBED]))
    status = client(told).status("a b")
    assert [(worker.name, worker.pid, worker.is_ready, worker.memory_bytes) for worker in status.workers] == [
        ("9000", 5, True, 7),
        ("9001", -1, False, 0),
    ]
    assert (status.queued, status.queue_left, status.startup_timeout_s, status.num_ready) == (3, 97, 60.0, 1)


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, b"{}", "TorchServe has no model x"),
        (500, b'{"message": "out of \\n order"}', "status 500, out of order"),
        (500, b"", "status 500, no body"),
        (200, b"[]", "in a way that is not known"),
        (200, b'[{"workers": []}]', "in a way that is not known: KeyError"),
        (200, b"<html>", "a body that is no JSON"),
    ],
)
def test_what_is_no_description_is_said(told: type[Told], status: int, content: bytes, words: str) -> None:
    told.answers["/models/x"] = (status, content)
    with pytest.raises(TorchServeError, match=re.escape(words)):
        client(told).status("x")


def test_a_refused_number_of_workers_is_said(told: type[Told]) -> None:
    told.answers["/models/x"] = (503, b'{"message": "no"}')
    with pytest.raises(TorchServeError, match="refuses 3 workers for x: status 503, no"):
        client(told).scale("x", 3)
    assert told.seen == [("PUT /models/x?min_worker=3&max_worker=3&synchronous=false", None)]


def test_what_a_worker_says_of_itself_is_read(told: type[Told]) -> None:
    told.answers["/models/x"] = (200, body([{**DESCRIBED, "customizedMetadata": {"pid": 5}}]))
    assert client(told).describe_by_worker("x", {}, 1.0) == {"pid": 5}
    told.answers["/models/x"] = (200, body([{**DESCRIBED, "customizedMetadata": "a text"}]))
    assert client(told).describe_by_worker("x", {}, 1.0) == {}


def test_an_expired_token_is_renewed_with_the_api_key(told: type[Told], tmp_path: Path) -> None:
    key_file = tmp_path / "key_file.json"
    key_file.write_text(json.dumps({"management": {"key": "old"}, "API": {"key": "api"}}))
    told.answers["/token"] = (200, b"")
    told.answers["/models/x"] = (400, b'{"type": "InvalidKeyException", "message": "Token Authorization failed."}')
    with pytest.raises(TorchServeError, match="status 400, Token Authorization failed"):
        client(told, key_file).status("x")
    assert told.seen == [
        ("GET /models/x", "Bearer old"),
        ("GET /token?type=management", "Bearer api"),
        ("GET /models/x", "Bearer old"),
    ]


def test_a_missing_key_file_is_said(told: type[Told], tmp_path: Path) -> None:
    with pytest.raises(TorchServeError, match="no token of TorchServe in .*none: No such file"):
        client(told, tmp_path / "none").status("x")


def test_metrics_that_cannot_be_read_are_said(told: type[Told]) -> None:
    with pytest.raises(TorchServeError, match="metrics: status 404"):
        client(told).counters()
    told.answers["/metrics"] = (200, b"<html> no metrics </html>")
    with pytest.raises(TorchServeError, match="metrics are not in Prometheus' format"):
        client(told).counters()
    dead = TorchServe("http://127.0.0.1:1", metrics_url="http://127.0.0.1:1/metrics")
    with pytest.raises(TorchServeError, match="metrics: no answer of http://127.0.0.1:1: Connection refused"):
        dead.counters()
    with pytest.raises(TorchServeError, match="management API: no answer of http://127.0.0.1:1: Connection refused"):
        dead.status("x")
