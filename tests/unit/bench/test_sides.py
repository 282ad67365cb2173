"""Servers and other processes of the benchmarks: ready or an error, charged for what they use, and ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.limit import Limit
from bench.ours import Archive
from bench.process import BenchError, Child, clean_env, free_ports
from bench.runner import Load, measure
from bench.side import describe, num_ready, started

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""

TORCHSERVE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class TorchServe(BaseHTTPRequestHandler):
    '''What a benchmark asks of TorchServe: both workers are ready when asked a second time; answers count as a metric.'''

    protocol_version = "HTTP/1.1"
    num_asked = num_answered = 0

    def do_GET(self):
        if self.path == "/metrics":
            metric = 'ts_inference_requests_total{model_name="m",hostname="a",}'
            self.answer(f"{metric} {TorchServe.num_answered}.0{chr(10)}".encode())
            return
        TorchServe.num_asked += 1
        status = "READY" if TorchServe.num_asked > 1 else "UNLOADED"
        workers = [{"id": "1", "status": "READY"}, {"id": "2", "status": status}]
        self.answer(json.dumps([{"minWorkers": 2, "workers": workers}]).encode())

    def do_POST(self):
        sum(range(300_000))  # the kernel counts CPU time in hundredths of a second
        TorchServe.num_answered += 1
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(text.encode() if text == "two" else json.dumps({"worse": 0.1, text: 0.9}).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), TorchServe).serve_forever()
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    payloads = tmp_path / "payloads.txt"
    payloads.write_text("one\ntwo\n")
    return Load(
        payloads,
        tmp_path,
        clients=2,
        seconds=0.5,
        warmup_s=0.2,
        probes=[(b"one", "text/plain"), (b"two", "text/plain")],
    )


def test_a_server_is_loaded_by_the_command_once_its_workers_are_ready_and_charged(tmp_path: Path, load: Load) -> None:
    base = f"http://127.0.0.1:{(port := free_ports(['http'])['http'])}"
    urls = {"url": f"{base}/predictions/m", "metrics_url": f"{base}/metrics", "management_url": base}
    command = [sys.executable, "-c", TORCHSERVE, str(port)]
    with started(command, tmp_path, clean_env(), lambda: num_ready(describe(base, "m")) == 2, urls) as served:
        block = measure("stand-in", served, load, 1)
    assert (block.errors, block.labels) == ({}, ["one", "two"])
    assert 0 < block.num_answered <= block.gained["ts_inference_requests_total"] <= block.num_answered + 2
    assert block.cpu.all_s > 0
    assert block.peak_mib > 5
    assert block.start_s > 0


def test_a_server_that_ends_while_starting_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('my last words')"]
    with (
        pytest.raises(BenchError, match=r"ended while starting(.|\n)*my last words"),
        started(command, tmp_path, clean_env(), lambda: False, {"url": ""}),
    ):
        pass


def test_a_child_that_ignores_sigterm_is_ended_with_its_children_of_other_sessions(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Child([sys.executable, "-c", STUBBORN], log=log, env=os.environ, cwd=tmp_path, stop_seconds=0.3) as child:
        deadline = time.monotonic() + 20.0
        while not log.read_text().endswith("\n") and time.monotonic() < deadline:
            time.sleep(0.05)
        grandchild = psutil.Process(int(log.read_text()))
    assert child.exit_code == -signal.SIGKILL
    assert psutil.wait_procs([grandchild], timeout=10.0)[1] == []


HANDLER = """
import types
import numpy as np
from ts_handlers import InferenceHandler, ModelInput


class CountingHandler(InferenceHandler):
    def open_session(self, files):
        return types.SimpleNamespace(run=lambda arrays: {}, describe=lambda: "nothing", max_parallel=1, runs_on_device=False)

    def transform(self, example):
        return [ModelInput({"x": np.ones(len(example), dtype=np.int64)}, len(example))]
"""


@pytest.fixture
def limit(tmp_path: Path) -> Limit:
    folder = tmp_path / "model"
    (folder / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "m", "handler": "counting_handler.py", "serializedFile": "none"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "counting_handler.py").write_text(HANDLER)
    (tmp_path / "payloads.txt").write_text("a\nbb\nccc\n")
    archive = Archive(tmp_path, "m", (), is_made=True)
    archive.store.mkdir()
    archive.mar.symlink_to(folder)
    return Limit("in process", archive, tmp_path / "payloads.txt", size=16, count=2)


def test_the_limit_in_process_is_of_all_processes_together(limit: Limit, load: Load) -> None:
    with limit.serve() as served:
        block = measure("in process", served, load, 1)
    assert block.num_answered > 100
    assert block.num_answered % 16 == 0
    assert block.requests_per_second * 0.5 == pytest.approx(block.num_answered, rel=0.5)
    assert block.more["hooks_s"] + block.more["run_s"] > 0.0
    assert block.more["cpu_s"] > 0
