"""What a pod runs beside its server: the readiness probe and the preStop hook, against a real TorchServe."""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("without_torch")]

BUSY = """
import os
import time

FOLDER = os.environ["BUSY_FOLDER"]

def handle(rows, context):
    if rows is None:
        return None
    open(f"{FOLDER}/started", "w").close()
    while not os.path.exists(f"{FOLDER}/enough"):
        time.sleep(0.02)
    return ["done"] * len(rows)
"""


@pytest.fixture
def store(write_mar: Callable[..., Path]) -> Path:
    write_mar("busy", **{"echo_handler.py": BUSY})
    return write_mar("other", **{"echo_handler.py": "def handle(rows, context):\n    return rows\n"}).parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the busy handler says that it has started, and looks whether it may answer."""
    monkeypatch.setenv("BUSY_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundServer]:
    """A server of two models, with one worker each and no token, as in a pod; not started."""
    with tempfile.TemporaryDirectory(prefix="ts-") as temporary:
        monkeypatch.setenv("TEMP", temporary)
        options = ("--cpus", "2", "--disable-token-authorization", *free_port_options())
        assert main(["configure", str(store), *options]) == 0
        yield BackgroundServer(store, options=("--stop-grace-s", "0"))


def call(port: int, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body="{}" if method == "POST" else None)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_probe_wants_every_model_and_draining_waits_for_every_answer(
    server: BackgroundServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ("--config", str(server.config.path))

    def says(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*words]), capsys.readouterr().out

    assert says("ready", *config) == (
        1,
        "not ready: busy 1.0: the management API does not answer; other 1.0: the management API does not answer\n",
    )
    with server:
        inference, management = server.config.inference.port, server.config.management.port
        assert says("ready", *config) == (0, "ready: busy 1.0, other 1.0\n")

        answers: list[int] = []
        computed, queued = (
            threading.Thread(target=lambda: answers.append(call(inference, "POST", "/predictions/busy")))
            for _ in range(2)
        )
        computed.start()
        while not (folder / "started").exists():
            time.sleep(0.05)
        try:
            code, said = says("drain", *config, "--settle-s", "0", "--timeout-s", "1")
            assert code == 1
            assert "1 of 2 workers have not answered yet" in said
            queued.start()
            tries = [says("drain", *config, "--settle-s", "1", "--timeout-s", "1")[1] for _ in range(2)]
            assert "busy 1.0 has 1 in its queue" in tries[-1]
        finally:
            (folder / "enough").touch()
        assert says("drain", *config, "--settle-s", "0")[0] == 0
        assert answers == [200, 200]
        computed.join()
        queued.join()

        assert call(management, "PUT", "/models/other?min_worker=0&max_worker=0&synchronous=true") == 200
        assert says("ready", *config) == (1, "not ready: other 1.0: no worker is READY (there is none)\n")
        assert call(inference, "GET", "/ping") == 200  # which is why the probe does not ask it
