"""What the client makes of answers; e2e/test_autoscale.py has a real TorchServe. The server here is a fake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.fake_torchserve import REFUSED, FakeTorchServe, described, fake_torchserve
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError

WORKERS = [
    {"id": "9000", "pid": 5, "status": "READY", "memoryUsage": 7},
    {"id": "9001", "pid": -1, "status": "UNLOADING"},
]
DESCRIBED = {
    "workers": WORKERS,
    "jobQueueStatus": {"pendingRequests": 3, "remainingCapacity": 97},
    "startupTimeout": 60,
    "maxBatchDelay": 2,
}


@pytest.fixture
def told() -> Iterator[FakeTorchServe]:
    with fake_torchserve() as fake:
        yield fake


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[FakeTorchServe]:
    """A server with tokens."""
    with fake_torchserve(tmp_path / "key_file.json") as fake:
        fake.answers["/models/x"] = (200, [DESCRIBED])
        yield fake


def client(told: FakeTorchServe) -> TorchServe:
    return TorchServe(told.url, told.key_file, metrics_url=f"{told.url}/metrics", timeout_s=5.0)


def test_workers_and_queue_are_read(told: FakeTorchServe) -> None:
    told.answers["/models/a%20b/1.0"] = (200, [DESCRIBED])
    status = client(told).status("a b", "1.0")
    assert [(worker.name, worker.pid, worker.is_ready, worker.memory_bytes) for worker in status.workers] == [
        ("9000", 5, True, 7),
        ("9001", -1, False, 0),
    ]
    assert (status.queued, status.queue_left, status.startup_timeout_s, status.num_ready) == (3, 97, 60.0, 1)
    assert status.max_batch_delay_ms == 2


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, {}, "TorchServe has no model x"),
        (500, {"message": "out of \n order"}, "status 500, out of order"),
        (500, b"", "status 500, no body"),
        (200, [], "in a way that is not known"),
        (200, [{"workers": []}], "in a way that is not known: KeyError"),
        (200, b"<html>", "a body that is no JSON"),
    ],
)
def test_what_is_no_description_is_said(told: FakeTorchServe, status: int, content: Any, words: str) -> None:
    told.answers["/models/x"] = (status, content)
    with pytest.raises(TorchServeError, match=re.escape(words)) as raised:
        client(told).status("x")
    assert raised.value.status == (0 if status == 200 else status)


def test_a_refused_number_of_workers_is_said(told: FakeTorchServe) -> None:
    told.answers["/models/x"] = (503, {"message": "no"})
    with pytest.raises(TorchServeError, match="refuses 3 workers for x: status 503, no"):
        client(told).scale("x", 3)
    assert told.seen == [("PUT /models/x?min_worker=3&max_worker=3&synchronous=false", None)]


def test_what_a_worker_says_of_itself_is_read(told: FakeTorchServe) -> None:
    told.answers["/models/x"] = (200, [{**DESCRIBED, "customizedMetadata": {"pid": 5}}])
    assert client(told).describe_by_worker("x", {}, 1.0) == {"pid": 5}
    told.answers["/models/x"] = (200, [{**DESCRIBED, "customizedMetadata": "a text"}])
    assert client(told).describe_by_worker("x", {}, 1.0) == {}


def test_an_expired_token_is_renewed_with_the_api_key(guarded: FakeTorchServe) -> None:
    guarded.expire()
    assert client(guarded).status("x").queued == 3
    assert guarded.seen == [
        ("GET /models/x", "Bearer token-0"),
        ("GET /token?type=management", "Bearer api"),
        ("GET /models/x", "Bearer token-2"),
    ]


def test_a_token_that_somebody_else_has_renewed_is_only_read_again(
    guarded: FakeTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewing it once more would end the token that the other one has just got."""
    asked = guarded.answer

    def renew_first(request: str, authorization: str | None) -> tuple[int, Any]:
        monkeypatch.setattr(guarded, "answer", asked)
        guarded.seen.append((request, authorization))
        guarded.new_token()
        return 400, REFUSED

    monkeypatch.setattr(guarded, "answer", renew_first)
    assert client(guarded).status("x").queued == 3
    assert [request for request, _ in guarded.seen] == ["GET /models/x"] * 2


def test_a_token_is_renewed_for_nothing_else_than_a_refused_one(guarded: FakeTorchServe) -> None:
    guarded.answers["/models/x"] = (400, {"type": "BadRequestException", "message": "no such parameter"})
    with pytest.raises(TorchServeError, match="status 400, no such parameter"):
        client(guarded).status("x")
    assert len(guarded.seen) == 1


def test_a_key_file_of_another_server_is_said(guarded: FakeTorchServe, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"management": {"key": "old"}, "API": {"key": "old"}}))
    with pytest.raises(TorchServeError, match=r"renews no token .*other\.json: status 400, .*; give the key file of"):
        TorchServe(guarded.url, other).status("x")


def test_a_missing_key_file_is_said(told: FakeTorchServe, tmp_path: Path) -> None:
    with pytest.raises(TorchServeError, match="no token of TorchServe in .*none: No such file"):
        TorchServe(told.url, tmp_path / "none").status("x")
    assert told.seen == []


def test_the_inference_token_is_another_one(guarded: FakeTorchServe, told: FakeTorchServe) -> None:
    assert client(guarded).token("inference") == "other"
    assert client(told).token("inference") is None


def test_metrics_that_cannot_be_read_are_said(told: FakeTorchServe) -> None:
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


def test_a_server_that_speaks_no_tls_does_not_answer(told: FakeTorchServe) -> None:
    told.answers["/models/x"] = described()
    with pytest.raises(TorchServeError, match="management API: no answer of https://"):
        TorchServe(told.url.replace("http:", "https:")).status("x")
