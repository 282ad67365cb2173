from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench import fastapi_side
from bench.compare import SIDES, main
from bench.fastapi_side import FastApiServer
from bench.ours import AUTO, OurSide
from bench.process import BenchError
from bench.sentiment import Sentiment
from bench.server import Launch, clean_env

from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.ports import free_ports

STAND_IN = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/predictions/fastapi", self.path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo)
for _ in range(int(sys.argv[2])):
    print("INFO:     Application startup complete.", flush=True)
    time.sleep(0.2)
server.serve_forever()
"""


def launch(folder: Path, program: str, num_processes: int) -> Launch:
    (port,) = free_ports(1)
    address = Address("inference", "http", "127.0.0.1", port)
    command = [sys.executable, "-c", program, str(port), str(num_processes)]
    model = ConfiguredModel("fastapi", "1.0", workers=2, startup_timeout_s=60)
    return Launch(model, command, address, address, folder, clean_env(), probe='"hi"')


def test_it_is_ready_once_both_processes_say_so(tmp_path: Path) -> None:
    with FastApiServer(launch(tmp_path, STAND_IN, 2)) as server:
        assert server.predict('{"a": 1}') == {"a": 1}
        assert server.log.read_text().count("startup complete") == 2


def test_one_process_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi_side, "START_SECONDS", 1.5)
    with pytest.raises(BenchError, match="not ready after"), FastApiServer(launch(tmp_path, STAND_IN, 1)):
        pass


def test_a_process_that_ends_while_starting_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"ended while starting\n.*no module"),
        FastApiServer(launch(tmp_path, "print('no module')", 2)),
    ):
        pass


def test_the_server_is_as_short_as_promised() -> None:
    lines = (Path(fastapi_side.__file__).with_name("fastapi_server.py")).read_text().splitlines()
    assert sum(bool(line.strip()) and not line.startswith(("#", '"""')) for line in lines) <= 30


@pytest.mark.parametrize(
    ("precision", "build_options", "expected"),
    [
        (AUTO, "", ["--precision", "auto", "--backend", "auto", "--calibration", "c", "--evaluation", "e"]),
        (
            AUTO,
            "--backend onnx",
            ["--precision", "auto", "--backend", "onnx", "--calibration", "c", "--evaluation", "e"],
        ),
        ("int8", "--quantizer dynamic", ["--precision", "int8", "--quantizer", "dynamic"]),
    ],
)
def test_ours_is_what_the_gate_chooses_unless_a_precision_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, build_options: str, expected: Sequence[str]
) -> None:
    commands: list[list[str]] = []

    def build(command: Sequence[object], **_: object) -> str:
        commands.append([str(part) for part in command])
        report = {"backend": "onnx", "precision": "int8", "quantizer": None}
        (tmp_path / "ours" / "store" / "ours.build.json").write_text(json.dumps(report))
        return ""

    monkeypatch.setattr("bench.ours.run", build)
    model = Sentiment(Path("m"), Path("c"), Path("e"))
    OurSide(model=model, work_dir=tmp_path, precision=precision, build_options=build_options).prepare()
    assert commands[0][-len(expected) :] == expected


def test_sides_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--sides", "stock", "mine"])
    error = capsys.readouterr().err
    assert all(side in error for side in SIDES)
