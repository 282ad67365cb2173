"""What `configure` writes, served by a real TorchServe."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ts_handlers.cli import main
from ts_handlers.cpu import POOL_ENV, cpu_budget
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.models import served_models
from ts_handlers.operate.torchserve.process.ports import free_port_options

pytestmark = pytest.mark.e2e

AFFINITY = """
import os

def handle(rows, context):
    if rows is None:
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return [{"pid": os.getpid(), "cpus": cpus, "batch": len(rows), "omp": os.environ["OMP_NUM_THREADS"]} for _ in rows]
"""


@pytest.fixture
def serve(write_mar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BackgroundServer]]:
    """Configure a store with one model and these options; the environment's own `python` is first on PATH."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in POOL_ENV:  # what a handler that was loaded in this process may have set
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        monkeypatch.setenv("TEMP", folder)

        def configure(*options: str) -> BackgroundServer:
            store = write_mar("echo", "1.0", **{"echo_handler.py": AFFINITY}).parent
            assert main(["configure", str(store), *options, *free_port_options()]) == 0
            return BackgroundServer(store, options=("--stop-grace-s", "0"))

        yield configure


def ask(server: BackgroundServer) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 (our own server)
        f"{server.inference_url}/predictions/echo",
        data=b"{}",
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.token()}"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


@pytest.mark.usefixtures("without_torch")
def test_a_server_of_the_latency_profile_is_ready_and_answers(serve: Callable[..., BackgroundServer]) -> None:
    with serve("--profile", "latency", "--cpus", "2") as server:
        answer = ask(server)

    assert [model.workers for model in served_models(server.config)] == [1]
    assert (answer["batch"], answer["omp"]) == (1, str(min(2, int(cpu_budget().cpus))))


@pytest.mark.skipif(
    len(cpu_budget().affinity) < 2 or cpu_budget().cpus < len(cpu_budget().affinity),
    reason="the launcher is for CPUs of our own, and two of them",
)
def test_the_launcher_binds_each_worker_to_what_the_file_says(serve: Callable[..., BackgroundServer]) -> None:
    server = serve("--launcher", "--workers", "2")
    each = len(cpu_budget().affinity) // 2
    with server:
        children = psutil.Process(server.pid).children(recursive=True)
        workers = [child for child in children if "model_service_worker" in " ".join(child.cmdline())]
        masks = {tuple(child.cpu_affinity()) for child in workers if "run_cpu" not in " ".join(child.cmdline())}
        answer = ask(server)

    text = server.config.path.read_text()
    listed = text.partition("--core-list ")[2].partition(" ")[0].split(",")
    cpus = [int(number) for number in listed]
    wanted = {tuple(cpus[start : start + each]) for start in range(0, len(cpus), each)}
    assert masks == wanted
    assert tuple(answer["cpus"]) in wanted
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
