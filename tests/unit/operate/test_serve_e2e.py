"""Real TorchServe, started as its users start it."""

from __future__ import annotations

import http.client
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.ports import free_port_options, worker_socket, worker_socket_folder
from ts_handlers.operate.readiness import ManagementClient, WorkerFailedError

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("without_torch")]

ECHO = """
import os

def handle(rows, context):
    if rows is None:
        return None
    return [{"echo": row.get("body"), "workers": os.environ["TS_HANDLERS_WORKERS"]} for row in rows]
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what TorchServe unpacks, which a killed one leaves; short, because worker sockets are in it, too."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        monkeypatch.setenv("TEMP", folder)
        yield Path(folder)


@pytest.fixture
def configured(write_mar: Callable[..., Path], temporary: Path) -> Callable[..., BackgroundServer]:
    """Configure a store with one model on free ports."""

    def configure(handler: str, *, workers: int = 1) -> BackgroundServer:
        store = write_mar("echo", "1.0", **{"echo_handler.py": handler}).parent
        assert main(["configure", str(store), "--cpus", str(workers), *free_port_options()]) == 0
        return BackgroundServer(store)

    return configure


def ask(
    server: BackgroundServer, method: str, path: str, *, token: str | None, body: str | None = None
) -> tuple[int, str]:
    address = server.config.inference
    connection = http.client.HTTPConnection(address.reachable_host, address.port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def assert_nothing_is_left(server: BackgroundServer, children: list[psutil.Process], timeout_s: float) -> None:
    _, alive = psutil.wait_procs(children, timeout=timeout_s)
    assert alive == []
    folder = worker_socket_folder(server.config.vmargs)
    assert not any(worker_socket(folder, port).exists() for port in server.config.worker_ports)


def test_it_serves_with_tokens_lets_no_other_in_and_leaves_nothing_behind(
    configured: Callable[..., BackgroundServer],
) -> None:
    server = configured(ECHO, workers=2)
    server.run_dir.mkdir()
    (server.run_dir / "key_file.json").write_text('{"management": {"key": "stale"}, "inference": {"key": "stale"}}')
    server.start()
    try:
        server.wait_ready()
        children = psutil.Process(server.pid).children(recursive=True)
        token = server.token()
        assert len([child for child in children if "model_service_worker" in " ".join(child.cmdline())]) == 2

        assert ask(server, "GET", "/ping", token=token)[0] == 200
        status, body = ask(server, "POST", "/predictions/echo", token=token, body='{"a": 1}')
        assert (status, "".join(body.split())) == (200, '{"echo":{"a":1},"workers":"2"}')
        assert 400 <= ask(server, "POST", "/predictions/echo", token=None, body="{}")[0] < 500
        assert 400 <= ask(server, "POST", "/predictions/echo", token="stale", body="{}")[0] < 500  # noqa: S106
        status, models = ManagementClient(server.config.management, server.run_dir / "key_file.json").get(
            "/models/echo"
        )
        assert (status, models[0]["maxBatchDelay"], models[0]["batchSize"]) == (200, 1, 8)

        second = BackgroundServer(server.config.path.parent, run_dir=server.run_dir.with_name("second"))
        with pytest.raises(WorkerFailedError, match="is in use"), second:
            pass
        assert ask(server, "GET", "/ping", token=token)[0] == 200
    finally:
        code = server.stop(signal.SIGTERM)

    assert code == 0
    assert_nothing_is_left(server, children, 1)
    assert not (server.run_dir / "key_file.json").exists()
    console = server.console_log.read_text()
    assert "Backend received inference" not in console
    assert (server.run_dir / "logs" / "ts_log.log").stat().st_size > 0


def test_whichever_process_is_killed_the_others_go_too_and_the_next_server_starts(
    configured: Callable[..., BackgroundServer],
) -> None:
    server = configured(ECHO)
    with server:
        children = psutil.Process(server.pid).children(recursive=True)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert_nothing_is_left(server, children, 20)

    with server:  # what was left does not keep the next one from starting
        assert ask(server, "GET", "/ping", token=server.token())[0] == 200
        children = psutil.Process(server.pid).children(recursive=True)
        java = next(child for child in children if "java" in child.name())
        java.kill()
        assert server.wait(20) == 128 + signal.SIGKILL

    assert_nothing_is_left(server, children, 1)


def test_a_model_that_cannot_be_loaded_is_reported_and_not_waited_for(
    configured: Callable[..., BackgroundServer],
) -> None:
    server = configured("import nowhere_to_be_found\n\nclass Handler: pass\n")
    start = time.monotonic()

    with pytest.raises(WorkerFailedError, match=r"died 2 times while loading: .*nowhere_to_be_found") as caught, server:
        pass

    assert "model_log.log" in str(caught.value)
    assert time.monotonic() - start < 90
