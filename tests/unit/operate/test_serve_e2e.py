"""Real TorchServe, started as its users start it."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.operate.torchserve.process.readiness import WorkerFailedError

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("without_torch")]

ECHO = """
import os

def handle(rows, context):
    if rows is None:
        return None
    return [{"echo": row.get("body"), "workers": os.environ["TS_HANDLERS_WORKERS"]} for row in rows]
"""


SLOW = """
import time

def handle(rows, context):
    if rows is None:
        return None
    time.sleep(0.5)
    return [{"answer": index} for index, row in enumerate(rows)]
"""


@pytest.fixture
def configured(write_mar: Callable[..., Path]) -> Callable[..., BackgroundServer]:
    """Configure a store with one model on free ports."""

    def configure(handler: str, *, workers: int = 1, config: str | None = None) -> BackgroundServer:
        store = write_mar("echo", "1.0", config=config, **{"echo_handler.py": handler}).parent
        assert main(["configure", str(store), "--cpus", str(workers), *free_port_options()]) == 0
        return BackgroundServer(store)

    return configure


LONG_DELAY = (
    "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 8\nmaxBatchDelay: 2500\nresponseTimeout: 60\nstartupTimeout: 60\n"
)


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
    assert not (server.run_dir / "tmp").exists()


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
        described = server.client.status("echo")
        assert (described.max_batch_delay_ms, described.num_ready) == (1, 2)

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
        assert psutil.wait_procs(children, timeout=20)[1] == []
        left = {file.name for file in (server.run_dir / "tmp" / "models").iterdir()}
        assert left

    with server:  # what was left does not keep the next one from starting, which removes it
        assert left.isdisjoint(file.name for file in (server.run_dir / "tmp" / "models").iterdir())
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


def ask_at_once(server: BackgroundServer, count: int) -> tuple[list[threading.Thread], list[int]]:
    """Send requests, each on a thread; return the threads, and the list that their statuses go into."""
    answers: list[int] = []
    token = server.token()

    def send() -> None:
        answers.append(ask(server, "POST", "/predictions/echo", token=token, body="{}")[0])

    clients = [threading.Thread(target=send) for _ in range(count)]
    for client in clients:
        client.start()
    time.sleep(0.3)
    return clients, answers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_server_ends(
    number: signal.Signals, configured: Callable[..., BackgroundServer]
) -> None:
    with configured(SLOW) as server:
        clients, answers = ask_at_once(server, 20)  # three batches of eight
        children = psutil.Process(server.pid).children(recursive=True)
        assert server.stop(number) == 0
        for client in clients:
            client.join()
    assert answers == [200] * 20
    assert_nothing_is_left(server, children, 1)


def test_a_request_that_waits_for_its_batch_to_fill_is_answered(configured: Callable[..., BackgroundServer]) -> None:
    with configured(SLOW, config=LONG_DELAY) as server:
        clients, answers = ask_at_once(server, 3)
        assert server.stop() == 0
        for client in clients:
            client.join()
    assert answers == [200] * 3


def test_output_that_nobody_reads_any_more_ends_no_request(configured: Callable[..., BackgroundServer]) -> None:
    """A shell sends Ctrl-C to `ts-handlers serve ... | tee` as a whole: tee ends before it reads what serve says."""
    server = configured(SLOW.replace("0.5", "2"))
    command = [sys.executable, "-m", "ts_handlers.cli", "serve", str(server.config.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout
        assert output is not None
        try:
            while not output.readline().startswith("ready "):
                assert process.poll() is None
            clients, answers = ask_at_once(server, 1)
            output.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            clients[0].join()
        finally:
            process.terminate()
    assert answers == [200]


def test_a_second_signal_ends_at_once(configured: Callable[..., BackgroundServer]) -> None:
    server = configured(SLOW.replace("0.5", "60"))
    with server:
        token = server.token()

        def send() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(server, "POST", "/predictions/echo", token=token, body="{}")

        client = threading.Thread(target=send)
        client.start()
        time.sleep(0.5)
        process = psutil.Process(server.pid)
        children = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert process.is_running()
        assert server.stop(signal.SIGTERM) == 0
        client.join()
    assert_nothing_is_left(server, children, 1)
