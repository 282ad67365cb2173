"""Workers of ours under torch's CPU launcher: it binds them, and they leave that as it is."""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.archives import pack_model
from tests.e2e.conftest import run_cli
from ts_handlers.machine import POOL_ENV, cpu_budget
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        len(cpu_budget().affinity) < 2 or cpu_budget().cpus < len(cpu_budget().affinity),
        reason="the launcher is for CPUs of our own, and two of them",
    ),
]

MODEL = "tiny-distilbert"


@pytest.fixture
def server(model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundServer]:
    """Two workers under the launcher; the environment's own `python` is first on PATH, where TorchServe looks for it."""
    pack_model(tmp_path / f"{MODEL}.mar", MODEL, model_dirs)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in POOL_ENV:  # what a handler that was loaded in this process may have set
        monkeypatch.delenv(name, raising=False)
    run_cli("configure", tmp_path, "--launcher", "--workers", 2, *free_port_options())
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,
        BackgroundServer(tmp_path, environ={**os.environ, "TEMP": temporary}) as running,
    ):
        yield running


def ask(server: BackgroundServer) -> int:
    url = f"{server.inference_url}/predictions/{MODEL}"
    request = urllib.request.Request(url, b"a text", {"Content-Type": "text/plain"})  # noqa: S310 (our own server)
    request.add_header("Authorization", f"Bearer {server.token()}")
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return int(response.status)


def masks(server: BackgroundServer) -> set[tuple[int, ...]]:
    """Return the CPUs of every thread of the workers, the launchers' own processes left out."""
    children = psutil.Process(server.pid).children(recursive=True)
    lines = {child: " ".join(child.cmdline()) for child in children}
    workers = [child for child, line in lines.items() if "model_service_worker" in line and "run_cpu" not in line]
    assert len(workers) == 2
    return {tuple(sorted(os.sched_getaffinity(thread.id))) for worker in workers for thread in worker.threads()}


def test_a_worker_stays_where_the_launcher_put_it(server: BackgroundServer) -> None:
    text = server.config.path.read_text(encoding="utf-8")
    cpus = [int(number) for number in text.partition("--core-list ")[2].partition(" ")[0].split(",")]
    half = len(cpus) // 2
    wanted = {tuple(cpus[:half]), tuple(cpus[half:])}
    assert masks(server) == wanted
    assert [ask(server) for _ in range(20)] == [200] * 20
    assert masks(server) == wanted
    log = (server.run_dir / "logs" / "model_log.log").read_text(encoding="utf-8")
    assert log.count("left as torch's CPU launcher set it") >= 2
