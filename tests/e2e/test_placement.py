"""Workers of two models in a real TorchServe: each on CPUs of its own, whatever happens to the others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.e2e.archives import pack_model
from tests.e2e.conftest import run_cli
from ts_handlers.machine.placement.roster import ABSENCE_S
from ts_handlers.machine.placement.slices import slice_cpus
from ts_handlers.machine.topology import read_topology
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = pytest.mark.e2e

MODELS = ("tiny-distilbert", "tiny-mpnet")
CORES = read_topology(os.sched_getaffinity(0))
Slices = dict[int, tuple[int, ...]]


@pytest.fixture(scope="module")
def server(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """Two models with two workers each; other servers on this machine are not counted."""
    folder = tmp_path_factory.mktemp("placement")
    for kind in MODELS:
        pack_model(folder / f"{kind}.mar", kind, model_dirs)
    run_cli("configure", folder, "--workers", 2, "--batch-size", 1, *free_port_options())
    scope = f"test-{uuid.uuid4().hex[:12]}"
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,
        BackgroundServer(folder, environ={**os.environ, "TEMP": temporary, "TS_HANDLERS_SCOPE": scope}) as running,
    ):
        yield running
    assert scope not in Path("/proc/net/unix").read_text(), "a stopped server leaves no name behind"


def manage(server: BackgroundServer, method: str, path: str) -> Any:
    request = urllib.request.Request(f"{server.config.management.url}{path}", method=method)  # noqa: S310
    request.add_header("Authorization", f"Bearer {server.token('management')}")
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        return json.load(response)


def worker_pids(server: BackgroundServer) -> dict[str, list[int]]:
    """Process ids of the workers that are ready, by model."""
    return {
        kind: [
            worker["pid"]
            for worker in manage(server, "GET", f"/models/{kind}")[0]["workers"]
            if worker["status"] == "READY"
        ]
        for kind in MODELS
    }


def send_to_all(server: BackgroundServer, models: Sequence[str] = MODELS) -> None:
    """Keep every worker busy for a moment, so that each has a batch to look around at."""
    token = server.token()

    def ask(number: int) -> int:
        url = f"{server.inference_url}/predictions/{models[number % len(models)]}"
        request = urllib.request.Request(url, b"a text", {"Content-Type": "text/plain"})  # noqa: S310
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return int(response.status)

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(120))) == {200}


def cpus_of(pid: int) -> tuple[int, ...]:
    """Return the CPUs of a process; all its threads have the same."""
    masks = {tuple(sorted(os.sched_getaffinity(thread.id))) for thread in psutil.Process(pid).threads()}
    assert len(masks) == 1, f"threads of {pid} are bound differently: {masks}"
    return masks.pop()


def slices(server: BackgroundServer) -> Slices:
    """Return the CPUs of every worker that lives."""
    found = {}
    for pid in [pid for pids in worker_pids(server).values() for pid in pids]:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # TorchServe has not noticed yet
            found[pid] = cpus_of(pid)
    return found


def expected(num_workers: int) -> Counter[tuple[int, ...]]:
    threads = max(1, sum(len(core.cpus) for core in CORES) // num_workers)
    return Counter(slice_cpus(CORES, place, num_workers, threads) for place in range(num_workers))


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.25)


def wait_for(server: BackgroundServer, is_right: Callable[[Slices], bool], seconds: float) -> Slices:
    """Send batches until the slices are right."""
    deadline = time.monotonic() + seconds
    while True:
        send_to_all(server)
        seen = slices(server)
        if is_right(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.5)


def test_slices_stay_right_while_workers_are_killed_and_scaled(server: BackgroundServer) -> None:
    at_start = wait_for(server, lambda seen: Counter(seen.values()) == expected(4), 60)

    victim = worker_pids(server)[MODELS[0]][0]
    os.kill(victim, signal.SIGKILL)
    send_to_all(server, MODELS[1:])  # its workers look around while one is missing
    wait_until(lambda: victim not in (now := slices(server)) and len(now) == 4, 90)
    after = wait_for(server, lambda seen: len(seen) == 4 and victim not in seen, 90)
    assert {pid: cpus for pid, cpus in after.items() if pid in at_start} == {
        pid: cpus for pid, cpus in at_start.items() if pid != victim
    }, "nobody else moved"
    (newcomer,) = set(after) - set(at_start)
    assert after[newcomer] == at_start[victim]

    manage(server, "PUT", f"/models/{MODELS[0]}?min_worker=4&synchronous=true")
    wait_for(server, lambda seen: Counter(seen.values()) == expected(6), 60)

    for kind in MODELS:
        manage(server, "PUT", f"/models/{kind}?min_worker=1&synchronous=true")
    alone = wait_for(server, lambda seen: len(seen) == 2 and Counter(seen.values()) == expected(2), ABSENCE_S + 60)
    assert len(alone) == 2

    log = (server.run_dir / "logs" / "model_log.log").read_text(encoding="utf-8")
    assert "of 4 workers, counted" in log
    assert "now 1 thread on CPUs" in log
