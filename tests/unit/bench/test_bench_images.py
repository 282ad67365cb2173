from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench import centralized, resnet_model
from bench.idle import idle_block, idle_table
from bench.image_client import send_images
from bench.image_run import ImageBlock, block_from_json, blocks_json, images_table, rows, verdicts
from bench.prometheus import Sample
from bench.usage import Usage

ORDER = ("process-1", "process-2", "stock-w1b8t0", "ours-fp32", "ours-int8")
GROUPS = {"process": "one process an image", "stock": "stock", "ours": "ours"}


def block(setting: str, rate: float, **values: Any) -> ImageBlock:
    facts: dict[str, Any] = {
        "setting": setting,
        "group": GROUPS[setting.partition("-")[0]],
        "round": 1,
        "num_images": 10,
        "wall_s": 10 / rate,
        "num_errors": 0,
        "cpu_s": 5.0,
        "peak_mib": 100.0,
        "start_s": 0.0,
        "labels": {"0": "a", "1": "b"},
    }
    return ImageBlock(**facts | values)


def test_rows_are_medians_in_order_with_labels_compared() -> None:
    blocks = [block("ours-int8", 30, labels={"0": "a", "1": "c", "7": "x"}), block("process-1", 1)]
    blocks += [block("ours-int8", 20, labels={"0": "a", "1": "c"}), block("ours-int8", 25, num_errors=5)]
    found = rows(blocks, ORDER)
    assert [row.setting for row in found] == ["process-1", "ours-int8"]
    assert found[1].images_per_second == 20  # of 12.5, 20 and 30: what failed does not count
    assert (found[1].num_errors, found[1].num_images, found[1].same_labels) == (5, 30, "2 of 2")
    assert "| 12.50 to 30.00 |" in images_table(found)
    assert [block_from_json(value) for value in json.loads(json.dumps(blocks_json(blocks)))] == blocks


@pytest.mark.parametrize(
    ("int8", "errors", "is_large", "expected"),
    [
        (24.0, 0, False, [True, True]),
        (23.0, 0, False, [False, True]),  # 12 times 2 is aimed at
        (13.0, 0, False, [False, False]),  # 3.5 times 4 is
        (24.0, 1, False, [False, False]),
        (24.0, 0, True, [True]),  # fp32, twice 4
    ],
)
def test_verdicts(int8: float, errors: int, is_large: bool, expected: list[bool]) -> None:
    blocks = [block("process-1", 1), block("process-2", 2), block("stock-w1b8t0", 4), block("ours-fp32", 8)]
    blocks.append(block("ours-int8", int8 * 10 / (10 - errors), num_errors=errors))
    judged = verdicts(rows(blocks, ORDER), is_large=is_large)
    assert [is_reached for _, is_reached in judged] == expected
    assert all(("reached" in text) == is_reached for text, is_reached in judged)


def test_what_is_wrong_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(centralized, "_settings", lambda *_: {"ours-int8": None})
    (tmp_path / "other.json").write_text("{}")
    for options, message in (
        (["--settings", "ours-int4"], "there is no setting ours-int4; choose of ours-int8"),
        (["--settings", "--json", str(tmp_path / "other.json")], "was not written by this benchmark"),
        (["--settings"], "there is nothing to show"),
    ):
        assert centralized.main([*options, "--work-dir", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def samples(batches: float, run_s: float, requests: float) -> list[Sample]:
    values = {"run": run_s, "transform": 1.0, "decode": 0.5, "format": 0.25}
    found = [Sample("ts_inference_requests_total", (), requests)]
    for stage, seconds in values.items():
        metric = f"ts_handlers_{stage}_seconds"
        found += [Sample(f"{metric}_sum", (), seconds * batches / 10), Sample(f"{metric}_count", (), batches)]
    fill = "ts_handlers_batch_fill_ratio"
    return [*found, Sample(f"{fill}_sum", (), batches / 2), Sample(f"{fill}_count", (), batches)]


def test_idle_is_what_is_left_of_the_time_of_all_batches() -> None:
    """Five of ten batches of four images were observed: each took 0.8 s in the model, 8 s of the 10 in all."""
    found = idle_block("int8", samples(5, 8.0, 40), samples(10, 8.0, 80), 10.0)
    assert found.images_per_second == 4
    assert found.idle == pytest.approx(0.2)
    assert found.shares["outside"] == pytest.approx(0.025)
    assert "| 80.0%" in idle_table([found])


class Answering(BaseHTTPRequestHandler):
    """Answers a body of one letter with it as the best label; `!` gets 400."""

    def do_POST(self) -> None:
        letter = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.dumps({"worse": 0.1, letter: 0.9}).encode()
        self.send_response(400 if letter == "!" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002  # its caller's name for it
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/predictions/m"
        server.shutdown()
        thread.join()


def test_images_are_sent_in_turn_and_failures_counted(url: str) -> None:
    sent = send_images(url, [b"a", b"b", b"!"], 10, 4)
    assert (sent.num_errors, sent.labels) == (3, {0: "a", 1: "b"})
    ended = threading.Event()
    ended.set()
    assert send_images(url, [b"a"], 10, 2, ended).labels == {}


def test_usage_counts_processes_that_came_and_went() -> None:
    burn = "import time; held = bytearray(60_000_000)\nwhile time.process_time() < 0.6: pass"
    with Usage() as usage:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.5 <= usage.cpu_s < 5  # the kernel counts in steps of 10 ms
    assert usage.peak_mib > 57


def test_the_model_is_a_resnet_50() -> None:
    """25,557,032 parameters, as torchvision counts its own."""
    with torch.device("meta"):
        model = resnet_model.ResNetClassifier()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
