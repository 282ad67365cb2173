from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.load import Load
from bench.process import BenchError
from bench.server import Launch, Server, clean_env

from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.ports import free_ports

MODEL = ConfiguredModel("echo", "1.0", workers=2, startup_timeout_s=60)

STAND_IN = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class TorchServe(BaseHTTPRequestHandler):
    '''The two addresses of TorchServe that a benchmark asks: both workers are ready when asked a second time.'''

    protocol_version = "HTTP/1.1"
    num_asked = 0

    def do_GET(self):
        TorchServe.num_asked += 1
        status = "READY" if TorchServe.num_asked > 1 else "UNLOADED"
        workers = [{"id": "1", "status": "READY", "pid": 0}, {"id": "2", "status": status, "pid": 0}]
        queue = {"pendingRequests": 0, "remainingCapacity": 100}
        model = {"workers": workers, "jobQueueStatus": queue, "startupTimeout": 60, "maxBatchDelay": 1}
        self.answer(json.dumps([model]).encode())

    def do_POST(self):
        sum(range(300_000))  # the kernel counts CPU time in hundredths of a second
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), TorchServe).serve_forever()
"""


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/predictions/echo"
        server.shutdown()
        thread.join()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    payloads = tmp_path / "payloads.txt"
    payloads.write_text("one\ntwo\n")
    return Load(payloads=payloads, clients=2, warmup_seconds=0.0, folder=tmp_path)


def launch(folder: Path, program: str) -> Launch:
    (port,) = free_ports(1)
    address = Address("inference", "http", "127.0.0.1", port)
    return Launch(MODEL, [sys.executable, "-c", program, str(port)], address, address, folder, clean_env())


def test_a_block_is_loaded_by_the_command_and_charged_to_the_server(tmp_path: Path, load: Load) -> None:
    with Server(launch(tmp_path, STAND_IN)) as server:
        assert server.predict('{"a": 1}') == {"a": 1}
        assert server.predict("no JSON") == "no JSON"
        block = load.block(server, "stand-in", 1, 0.5)
    assert (block.side, block.result.errors, block.result.concurrency) == ("stand-in", {}, 2)
    assert block.result.num_ok > 0
    assert block.server_cpu_seconds > 0
    assert block.wall_seconds > block.result.duration_s
    assert block.idle_cpu_seconds is None


def test_a_server_that_ends_while_starting_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"ended while starting\n.*my last words"),
        Server(launch(tmp_path, "print('my last words')")),
    ):
        pass


def test_a_block_without_successes_is_a_result(refusing_url: str, load: Load) -> None:
    result = load.run(refusing_url, 0.2)
    assert (result.num_ok, result.requests_per_second, result.p50_ms) == (0, 0.0, None)
    assert set(result.errors) == {"503"}


def test_a_server_that_is_not_there_is_an_error(load: Load) -> None:
    (port,) = free_ports(1)
    with pytest.raises(BenchError, match="nothing answers at"):
        load.run(f"http://127.0.0.1:{port}/", 0.2)


def test_output_that_is_no_result_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.TS_HANDLERS", (sys.executable, "-c", "print('nonsense')"))
    with pytest.raises(BenchError, match="printed no result: .*nonsense"):
        load.run("http://127.0.0.1:1/", 0.2)
