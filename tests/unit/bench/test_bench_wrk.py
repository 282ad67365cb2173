from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.process import BenchError
from bench.wrk import WrkLoad, find_wrk, read_result

PRINTED = {
    "requests": 6240,
    "duration_us": 8000000,
    "mean_us": 40500.0,
    "p50_us": 39000.0,
    "p90_us": 51000.0,
    "p99_us": 64250.0,
    "max_us": 91000.0,
    "connect": 0,
    "read": 0,
    "write": 0,
    "status": 0,
    "timeout": 0,
}

STAND_IN = """\
#!{python}
'''Stands for wrk where it is not installed: prints what it was called with, and a line like wrk.lua's.'''
import json, pathlib, sys, time
until = time.process_time() + 0.05
while time.process_time() < until:
    pass
bodies, index = (pathlib.Path(name).read_bytes() for name in sys.argv[-2:])
pathlib.Path("called.json").write_text(json.dumps([sys.argv[1:-2], bodies.decode("latin-1"), index.decode()]))
print("Running 8s test")
print({printed!r})
"""


@pytest.fixture
def load(tmp_path: Path) -> WrkLoad:
    payloads = tmp_path / "payloads"
    payloads.mkdir()
    (payloads / "1.txt").write_text("two\nlines")
    (payloads / "2.png").write_bytes(b"\x00\xff\r\n\x00")
    return WrkLoad(payloads, 2, tmp_path)


def stand_in(folder: Path, printed: str) -> None:
    """Put a program called wrk into the folder."""
    program = folder / "wrk"
    program.write_text(STAND_IN.format(python=sys.executable, printed=printed))
    program.chmod(0o755)


def test_a_result_has_what_wrk_says_in_seconds_and_milliseconds() -> None:
    result = read_result(PRINTED, 32, 1.5)
    assert (result.concurrency, result.duration_s, result.requests_per_second) == (32, 8.0, 780.0)
    assert (result.num_ok, result.num_answered, result.errors, result.client_cpu_s) == (6240, 6240, {}, 1.5)
    assert (result.mean_ms, result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms) == (40.5, 39, 51, 64.25, 91)


def test_answers_without_2xx_and_broken_connections_are_errors() -> None:
    result = read_result(PRINTED | {"status": 240, "read": 3}, 32, 1.5)
    assert (result.num_ok, result.requests_per_second, result.num_errors) == (6000, 750.0, 243)
    assert result.errors == {"read": 3, "status": 240}
    nothing = read_result(PRINTED | {"requests": 0, "p99_us": 0.0, "connect": 32}, 32, 0.1)
    assert (nothing.num_ok, nothing.p99_ms, nothing.num_errors) == (0, None, 32)


def test_wrk_is_called_with_all_bodies_and_its_cpu_time_is_counted(
    tmp_path: Path, load: WrkLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, json.dumps(PRINTED))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    result = load.run("http://127.0.0.1:1/predictions/m", 8)
    arguments, bodies, index = json.loads((tmp_path / "called.json").read_text())
    assert arguments[:3] == ["-t1", "-c2", "-d8s"]
    assert "http://127.0.0.1:1/predictions/m" in arguments
    assert bodies == "two\nlines\x00\xff\r\n\x00"
    assert index == "9 text/plain\n5 image/png\n"
    assert result.num_ok == 6240
    assert 0.05 <= result.client_cpu_s < 30.0


def test_output_that_is_no_result_is_an_error(tmp_path: Path, load: WrkLoad, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "nonsense")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BenchError, match="printed no result: .*nonsense"):
        load.run("http://127.0.0.1:1/", 1)


def test_a_machine_without_wrk_is_told_where_it_is_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="apt-get install wrk"):
        find_wrk()


class _Server(BaseHTTPRequestHandler):
    """Keeps what it was sent; refuses pictures."""

    protocol_version = "HTTP/1.1"
    received: set[tuple[str, str, bytes]] = set()  # noqa: RUF012  # for the class: a server makes an instance a connection

    def do_POST(self) -> None:
        content_type = self.headers["Content-Type"]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.add((self.path, content_type, body))
        self.send_response(200 if content_type == "text/plain" else 415)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predictions/m"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_itself_sends_every_body_in_turn(load: WrkLoad) -> None:
    with serving() as url:
        result = load.run(url, 1)
    assert _Server.received == {
        ("/predictions/m", "text/plain", b"two\nlines"),
        ("/predictions/m", "image/png", b"\x00\xff\r\n\x00"),
    }
    assert result.num_ok > 0
    assert set(result.errors) == {"status"}
    assert result.errors["status"] == pytest.approx(result.num_ok, abs=2)
    assert 0.0 < result.p50_ms <= result.max_ms  # type: ignore[operator]  # neither is None with answers
