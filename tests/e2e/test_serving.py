"""All four tasks through a real TorchServe: /predictions, KServe v1 and v2, gRPC, and a batch with one bad row."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

import ts_handlers
from tests.e2e import grpc_client
from tests.e2e.conftest import SERVED
from tests.model_dirs import TASK_OF
from ts_handlers.cli import main
from ts_handlers.config.tasks import TASKS
from ts_handlers.testing import load_handler, predict

if TYPE_CHECKING:
    from ts_handlers.operate.background import BackgroundServer

pytestmark = pytest.mark.e2e

TEXT = "Maria Gonzalez moved to Toronto in 2019."
QUESTION = "Where did Maria move?"


def ask(server: BackgroundServer, path: str, body: Any, content_type: str | None = None) -> tuple[int, Any]:
    """POST to the inference API; return status and parsed answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.inference_url}{path}", data=data, method="POST")  # noqa: S310
    request.add_header("Authorization", f"Bearer {server.token()}")
    request.add_header("Content-Type", content_type or "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def instance(name: str) -> Any:
    return {"question": QUESTION, "context": TEXT} if name == "answers" else TEXT


@pytest.fixture(scope="module")
def expected(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each archive's handler says of the instance in this process."""
    results = {}
    for name, kind in SERVED.items():
        folder = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(store / f"{name}.mar") as archive:
            archive.extractall(folder)
        handler = load_handler(getattr(ts_handlers, TASKS[TASK_OF[kind]].handler), folder)
        results[name] = predict(handler, instance(name))[0].json()
        assert results[name], "nothing to compare"
    return results


def assert_same(actual: Any, wanted: Any) -> None:
    """Compare, with room for the thread count of the process that computed it."""
    if isinstance(wanted, dict):
        assert actual.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(actual[key], value)
    elif isinstance(wanted, list):
        assert len(actual) == len(wanted)
        for left, right in zip(actual, wanted, strict=True):
            assert_same(left, right)
    else:
        assert actual == (pytest.approx(wanted, abs=1e-4) if isinstance(wanted, float) else wanted)


@pytest.mark.parametrize("name", SERVED)
def test_predictions(name: str, server: BackgroundServer, expected: dict[str, Any]) -> None:
    assert_same(ask(server, f"/predictions/{name}", instance(name)), (200, expected[name]))
    status, many = ask(server, f"/predictions/{name}", [instance(name)] * 3)
    assert (status, len(many)) == (200, 3)


@pytest.mark.parametrize("name", ["sentiment", "embeddings", "entities"])
@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", "application/octet-stream"])
def test_plain_texts(name: str, content_type: str, server: BackgroundServer, expected: dict[str, Any]) -> None:
    assert_same(ask(server, f"/predictions/{name}", TEXT.encode(), content_type), (200, expected[name]))


@pytest.mark.parametrize("name", SERVED)
def test_kserve_v1(name: str, server: BackgroundServer, expected: dict[str, Any]) -> None:
    answer = ask(server, f"/v1/models/{name}:predict", {"instances": [instance(name)]})
    assert_same(answer, (200, {"predictions": [expected[name]]}))


@pytest.mark.parametrize("name", SERVED)
def test_kserve_v2(name: str, server: BackgroundServer, expected: dict[str, Any]) -> None:
    columns = {"question": QUESTION, "context": TEXT} if name == "answers" else {"text": TEXT}
    tensors = [{"name": key, "shape": [1], "datatype": "BYTES", "data": [text]} for key, text in columns.items()]
    status, answer = ask(server, f"/v2/models/{name}/infer", {"id": "42", "inputs": tensors})
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (200, "42", name, "1.0")
    output = answer["outputs"][0]
    prediction = output["data"] if output["datatype"] == "FP32" else json.loads(output["data"][0])
    assert_same(prediction, expected[name])


@pytest.mark.parametrize("name", SERVED)
def test_grpc(name: str, server: BackgroundServer, expected: dict[str, Any], grpc_address: str) -> None:
    body = json.dumps(instance(name)).encode() if name == "answers" else TEXT.encode()
    answer = grpc_client.predict(grpc_address, name, str(server.token()), data=body)
    assert_same(json.loads(answer), expected[name])


def test_grpc_with_named_inputs(server: BackgroundServer, expected: dict[str, Any], grpc_address: str) -> None:
    answer = grpc_client.predict(
        grpc_address, "answers", str(server.token()), question=QUESTION.encode(), context=TEXT.encode()
    )
    assert_same(json.loads(answer), expected["answers"])


@pytest.fixture(scope="module")
def grpc_address(server: BackgroundServer) -> str:
    properties = (server.run_dir.parent / "config.properties").read_text(encoding="utf-8")
    port = next(line.split("=")[1] for line in properties.splitlines() if line.startswith("grpc_inference_port="))
    return f"127.0.0.1:{port}"


def test_sixteen_rows_one_of_them_bad(server: BackgroundServer) -> None:
    bodies = [f"sentence number {index}".encode() for index in range(15)] + [b"not \xff UTF-8"]

    def send(body: bytes) -> tuple[int, Any]:
        return ask(server, "/predictions/sentiment", body, "text/plain")

    before = batches(server)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, bodies))
    assert [status for status, _ in answers] == [200] * 15 + [400]
    assert answers[-1][1]["error"]["code"] == "invalid_utf8"
    count, fill = batches(server)
    assert (count, fill) == (before[0] + 1, before[1] + 1.0)  # it was one batch, and full
    metrics = scrape(server)
    assert metrics[("ts_handlers_rejected_rows_total", "invalid_utf8", "sentiment")] >= 1


def batches(server: BackgroundServer) -> tuple[float, float]:
    """Return how many batches the sentiment model had so far, and the sum of their fills."""
    metrics = scrape(server)
    count, fill = (
        metrics.get((f"ts_handlers_batch_fill_ratio_{name}", "", "sentiment"), 0.0) for name in ("count", "sum")
    )
    return count, fill


def scrape(server: BackgroundServer) -> dict[tuple[str, ...], float]:
    """Return the metrics as (name, le or Code, ModelName) -> value."""
    time.sleep(0.5)  # the frontend reads the worker's output in a thread of its own
    address = server.config.metrics
    assert address is not None
    with urllib.request.urlopen(f"{address.url}/metrics", timeout=30) as response:  # noqa: S310
        text = response.read().decode()
    found: dict[tuple[str, ...], float] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2)))
            key = (match.group(1), labels.get("le") or labels.get("Code", ""), labels.get("ModelName", ""))
            found[key] = float(match.group(3))
    return found


def test_metrics_are_exported(server: BackgroundServer) -> None:
    ask(server, "/predictions/embeddings", ["one", "a few more words"])
    metrics = scrape(server)
    for stage in ("decode", "transform", "run", "format"):
        assert metrics[(f"ts_handlers_{stage}_seconds_count", "", "embeddings")] >= 1
    assert metrics[("ts_handlers_padded_token_ratio_count", "", "embeddings")] >= 1


def test_the_real_embeddings_know_what_is_alike(server: BackgroundServer) -> None:
    _, vectors = ask(
        server, "/predictions/embeddings", ["A cat sits on the mat.", "A kitten is on a rug.", "Stocks fell."]
    )
    similarity = np.array(vectors) @ np.array(vectors).T
    assert similarity[0, 1] > 0.5 > 0.3 > similarity[0, 2]


def test_a_handler_archived_by_hand(server: BackgroundServer) -> None:
    status, label = ask(server, "/predictions/loud", {"shout": "I LOVE THIS"})
    assert status == 200
    assert label in ("no", "yes")
    status, answer = ask(server, "/predictions/loud", {"whisper": "no"})
    assert (status, answer["error"]["message"]) == (400, 'send {"shout": "a text"}')


def test_describe_names_the_runtime(server: BackgroundServer) -> None:
    described = server.client.describe_by_worker("sentiment", {}, 30)
    assert (described["task"], described["threads"]) == ("text-classification", 1)


def test_a_readiness_probe_finds_a_worker_of_every_model(
    server: BackgroundServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ready", "--config", str(server.config.path)]) == 0  # with the token of its run folder
    said = capsys.readouterr().out
    assert [name for name in SERVED if f"{name} 1.0" not in said] == []


def test_workers_stay_within_their_share_and_say_so(server: BackgroundServer) -> None:
    log = "\n".join(path.read_text(errors="replace") for path in (server.run_dir / "logs").glob("*.log"))
    lines = [line for line in log.splitlines() if "ts_handlers: " in line and " ready: " in line]
    assert len(lines) >= len(SERVED)
    assert all(f" of {len(SERVED) + 1} workers, counted; " in line for line in lines)
    assert "Toronto" not in log


def test_workers_have_the_threads_they_were_given(server: BackgroundServer) -> None:
    workers = [
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if "model_service_worker" in " ".join(process.cmdline())
    ]
    assert len(workers) == len(SERVED) + 1
    # one of Python, and at most a watcher or two of torch's and ONNX Runtime's; a pool would have one for each CPU
    assert max(worker.num_threads() for worker in workers) <= 3
