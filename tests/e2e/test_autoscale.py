"""`ts-handlers autoscale` beside a real TorchServe: workers follow the load, no request is lost. The cluster is a fake."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cgroup import CpuGroup, cpu_group
from tests.e2e.archives import write_archive
from tests.e2e.conftest import run_cli
from tests.kubernetes_api import FakeKubernetes, serve_kubernetes
from ts_handlers.operate.autoscale.remove import remove_last_worker
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options, free_ports

pytestmark = pytest.mark.e2e

HANDLER = '''
"""A model that takes 20 ms and no CPU: 50 requests a second from each worker, whatever else the machine does."""
import time
from types import SimpleNamespace

import numpy as np
from ts_handlers import InferenceHandler
from ts_handlers.batching.padding import ModelInput


def run(arrays, *, num_parallel=1):
    time.sleep(0.02)
    return {"y": arrays["x"]}


class SleepHandler(InferenceHandler):
    def open_session(self, files):
        return SimpleNamespace(max_parallel=1, run=run, resize=print, describe=lambda: "sleeps")

    def transform(self, example):
        return [ModelInput({"x": np.zeros(1, dtype=np.int64)}, length=1)]

    def format(self, example, inputs, outputs):
        return "fine"
'''


@pytest.fixture(scope="module")
def group() -> Iterator[CpuGroup]:
    """A real control group of one CPU for the server, where this machine lets us make one."""
    with cpu_group() as made:
        yield made


@pytest.fixture(scope="module")
def server(group: CpuGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """TorchServe with one worker of a model of known speed."""
    store = tmp_path_factory.mktemp("store")
    write_archive(store / "slow.mar", {"handler.py": HANDLER, "model-config.yaml": "{}"}, handler="handler.py")
    run_cli("configure", store, "--workers", 1, "--batch-size", 1, *free_port_options())
    scope = f"test-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="ts-") as temporary:
        running = BackgroundServer(store, environ={**os.environ, "TEMP": temporary, "TS_HANDLERS_SCOPE": scope})
        running.start()
        try:
            group.add(running.pid)
            running.wait_ready()
            yield running
        finally:
            running.stop()


class Clients:
    """Clients that send one request after the other, and count what became of each."""

    def __init__(self, server: BackgroundServer) -> None:
        self.outcomes: Counter[int | str] = Counter()
        self.num_sent = 0
        self._address, self._token = server.config.inference, server.token()
        self._lock = threading.Lock()

    @contextmanager
    def sending(self, count: int, pause_s: float = 0.0) -> Iterator[None]:
        """Have so many more of them while the block runs; all their answers are in when it ends."""
        is_over = threading.Event()
        threads = [threading.Thread(target=self._send, args=(is_over, pause_s)) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    def _send(self, is_over: threading.Event, pause_s: float) -> None:
        headers = {"Content-Type": "text/plain", "Authorization": f"Bearer {self._token}"}
        while not is_over.wait(pause_s):
            connection = http.client.HTTPConnection(self._address.reachable_host, self._address.port, timeout=30)
            try:
                connection.request("POST", "/predictions/slow", b"a text", headers)
                response = connection.getresponse()
                response.read()
                outcome: int | str = response.status
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
            finally:
                connection.close()
            with self._lock:
                self.num_sent += 1
                self.outcomes[outcome] += 1


@contextmanager
def autoscaler(
    server: BackgroundServer, folder: Path, **settings: Any
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the program with windows that suit a test; yield it and its log."""
    config, log = folder / "autoscale.yaml", folder / "autoscale.log"
    policy = {"max_workers": 2, "target_in_flight": 1.5, "up_load_times": 0.2, "down_load_times": 0.3}
    where = {"management_url": server.config.management.url, "key_file": str(server.run_dir / "key_file.json")}
    assert server.config.metrics is not None
    content = {
        "torchserve": {**where, "metrics_url": f"{server.config.metrics.url}/metrics"},
        "models": {"slow": {**policy, "cooldown_load_times": 0.1}},
        "budget": {"max_cpus": 2.0},
        "interval_s": 0.2,
        "window_s": 1.0,
        "metrics": {"port": free_ports(1)[0]},
        **settings,
    }
    config.write_text(yaml.safe_dump(content))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ts_handlers.cli", "autoscale", "--config", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def wait_for(is_so: Callable[[], bool], log: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_workers_and_pod_follow_the_load_and_no_request_is_lost(
    server: BackgroundServer, group: CpuGroup, tmp_path: Path
) -> None:
    """The fake kubelet says what is in effect a second before it writes the quota of the server's control group."""
    account = tmp_path / "account"
    account.mkdir()
    kubernetes = FakeKubernetes(account)
    kubernetes.on_applied = lambda cpu: threading.Timer(1.0, group.set_quota, [float(cpu)]).start()
    torchserve, clients = server.client, Clients(server)
    with serve_kubernetes(kubernetes) as url:
        pod = {"api_url": url, "service_account": str(account), "pod": "server-0"}
        with autoscaler(server, tmp_path, kubernetes=pod) as (process, log), clients.sending(1, 0.05):
            kubernetes.mode = "defer"
            with clients.sending(5):
                wait_for(lambda: "2 CPUs are deferred" in log.read_text(), log)
                assert len(torchserve.status("slow").workers) == 1, "no CPUs, no worker"
                kubernetes.mode = "accept"
                wait_for(lambda: torchserve.status("slow").num_ready == 2, log)
            wait_for(lambda: len(torchserve.status("slow").workers) == 1, log)
            wait_for(lambda: kubernetes.cpu_in_effect == "1", log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
    assert clients.outcomes == {200: clients.num_sent}
    assert clients.num_sent > 100
    assert kubernetes.patches == ["2", "1"]
    quota = 1.0 if group.path else None
    wait_for(lambda: torchserve.describe_by_worker("slow", {}, 10.0).get("cpu_quota") == quota, log, 10.0)
    lines = log.read_text().splitlines()
    order = [
        next(number for number, line in enumerate(lines) if words in line)
        for words in (
            "asked for 2 CPUs",
            "deferred",
            "has 2 CPUs",
            *(["the cgroup still has 1 CPUs, and 2 are needed"] if group.path else []),
            "1 -> 2 workers (load)",
            "2 -> 1 workers (idle)",
            "asked for 1 CPUs",
        )
    ]
    assert order == sorted(order)
    assert lines[-1].endswith("stopped (SIGTERM); the workers stay as they are")


def test_workers_are_removed_under_load_without_losing_a_request(server: BackgroundServer, tmp_path: Path) -> None:
    """The worker that goes is held; that TorchServe is gone, then, is no more than a line."""
    torchserve, clients = server.client, Clients(server)
    key_file = server.run_dir / "key_file.json"
    keys = json.loads(key_file.read_text())
    keys["management"]["key"] = "expired"  # it is renewed
    key_file.write_text(json.dumps(keys))
    torchserve.scale("slow", 2)
    log = tmp_path / "none"
    log.touch()
    wait_for(lambda: torchserve.status("slow").num_ready == 2, log)
    with clients.sending(6):
        time.sleep(0.5)
        remove_last_worker(torchserve, "slow", 20.0)
        assert torchserve.status("slow").num_ready == 1
        time.sleep(0.5)
    assert clients.outcomes == {200: clients.num_sent}
    with autoscaler(server, tmp_path) as (process, log):
        wait_for(lambda: "scaling slow" in log.read_text(), log)
        server.stop()
        wait_for(lambda: "TorchServe's management API: no answer" in log.read_text(), log)
        time.sleep(1.0)
        assert process.poll() is None
        assert log.read_text().count("no answer") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
