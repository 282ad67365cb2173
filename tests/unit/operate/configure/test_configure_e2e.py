"""What `configure` writes, served by a real TorchServe."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.machine import POOL_ENV, cpu_budget
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.models import served_models
from ts_handlers.operate.torchserve.process.ports import free_port_options

ECHO = """
import os

def handle(rows, context):
    if rows is None:
        return None
    return [{"batch": len(rows), "omp": os.environ["OMP_NUM_THREADS"]} for _ in rows]
"""


@pytest.mark.e2e
@pytest.mark.usefixtures("without_torch")
def test_a_server_of_the_latency_profile_is_ready_and_answers(
    write_mar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in POOL_ENV:  # what a handler that was loaded in this process may have set
        monkeypatch.delenv(name, raising=False)
    store = write_mar("echo", "1.0", **{"echo_handler.py": ECHO}).parent
    assert main(["configure", str(store), "--profile", "latency", "--cpus", "2", *free_port_options()]) == 0
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        monkeypatch.setenv("TEMP", folder)
        with BackgroundServer(store, options=("--stop-grace-s", "0")) as server:
            request = urllib.request.Request(  # noqa: S310 (our own server)
                f"{server.inference_url}/predictions/echo",
                data=b"{}",
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.token()}"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                answer = json.load(response)

    assert [model.workers for model in served_models(server.config)] == [1]
    assert (answer["batch"], answer["omp"]) == (1, str(min(2, int(cpu_budget().cpus))))
