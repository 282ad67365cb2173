"""The management APIs here are fakes that answer as TorchServe does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.fake_torchserve import FakeTorchServe, described, fake_torchserve
from ts_handlers.operate.torchserve.client import TorchServe
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process import readiness
from ts_handlers.operate.torchserve.process.readiness import (
    WorkerFailedError,
    WorkerWatch,
    wait_ready,
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeTorchServe]:
    with fake_torchserve(tmp_path / "key_file.json") as fake:
        yield fake


@pytest.fixture
def watch(api: FakeTorchServe, tmp_path: Path) -> WorkerWatch:
    (tmp_path / "model_log.log").write_text("t [WARN ] W-9000-m_1.0-stdout MODEL_LOG - OldError: of an earlier run\n")
    return WorkerWatch(TorchServe(api.url, api.key_file), tmp_path / "model_log.log", tmp_path / "ts_log.log")


@pytest.fixture
def models() -> list[ConfiguredModel]:
    return [ConfiguredModel("m", "1.0", workers=2, startup_timeout_s=1)]


@pytest.fixture(autouse=True)
def poll_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_POLL_S", 0.01)


def dead_pid() -> int:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid


def test_it_waits_for_every_worker(api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]) -> None:
    pid = os.getpid()
    answers = iter(
        [
            (500, {}),
            described(("9000", "UNLOADING", -1)),
            described(("9000", "READY", pid), ("9001", "UNLOADING", pid)),
            described(("9000", "READY", pid), ("9001", "READY", pid)),
        ]
    )
    api.answers["/models/m/1.0"] = lambda: next(answers)

    assert wait_ready(models, watch, lambda: True) > 0
    assert list(answers) == []


def test_a_model_that_was_not_taken_is_reported_with_its_reason(
    watch: WorkerWatch, models: list[ConfiguredModel], tmp_path: Path
) -> None:
    (tmp_path / "ts_log.log").write_text("t [WARN ] main ModelServer - Failed to load model: m.mar\n")

    with pytest.raises(
        WorkerFailedError, match=r"did not take m 1\.0: Failed to load model: m\.mar; see .*ts_log\.log"
    ):
        wait_ready(models, watch, lambda: True)


def test_a_worker_that_keeps_dying_is_reported_with_the_cause(
    api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]
) -> None:
    with watch.model_log.open("a") as log:
        log.write("t [INFO ] W-9001-m_1.0-stdout MODEL_LOG - ValueError: of another worker\n")
        log.write("t [INFO ] W-9000-m_1.0-stdout MODEL_LOG - Traceback (most recent call last):\n")
        log.write("t [INFO ] W-9000-m_1.0-stdout MODEL_LOG - ModuleNotFoundError: No module named 'nowhere'\n")
        log.write("t [INFO ] W-9000-m_1.0-stdout MODEL_LOG - RuntimeError: 500 - Unknown exception\n")
    pids = [dead_pid(), dead_pid()]
    api.answers["/models/m/1.0"] = lambda: described(("9000", "UNLOADING", pids[0] if len(pids) == 1 else pids.pop()))

    with pytest.raises(
        WorkerFailedError, match=r"worker 9000 of m 1\.0 died 2 times .*: ModuleNotFoundError: No module"
    ):
        wait_ready(models, watch, lambda: True)


def test_one_death_is_forgiven(api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]) -> None:
    pid = os.getpid()
    answers = iter(
        [
            described(("9000", "UNLOADING", dead_pid()), ("9001", "READY", pid)),
            described(("9000", "READY", pid), ("9001", "READY", pid)),
        ]
    )
    api.answers["/models/m/1.0"] = lambda: next(answers)

    assert wait_ready(models, watch, lambda: True) >= 0


def test_a_death_without_a_reason_is_said_so(
    api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]
) -> None:
    pids = [dead_pid(), dead_pid()]
    watch.model_log.unlink()
    api.answers["/models/m/1.0"] = lambda: described(("9000", "UNLOADING", pids[0] if len(pids) == 1 else pids.pop()))

    with pytest.raises(WorkerFailedError, match="no reason was logged"):
        wait_ready(models, watch, lambda: True)


def test_a_frontend_that_ends_is_not_waited_for(
    api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]
) -> None:
    api.answers["/models/m/1.0"] = lambda: (503, {})

    with pytest.raises(WorkerFailedError, match="ended before it was ready"):
        wait_ready(models, watch, lambda: False)


def test_a_model_may_take_longer_to_load_than_its_token_lives(
    api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel]
) -> None:
    """A healthy server was stopped: its token, which lives a minute at least, was refused from then on."""
    pid = os.getpid()
    answers = iter([described(("9000", "UNLOADING", pid)), described(("9000", "READY", pid), ("9001", "READY", pid))])

    def one_answer_a_token() -> tuple[int, Any]:
        api.expire()
        return next(answers)

    api.answers["/models/m/1.0"] = one_answer_a_token

    assert wait_ready(models, watch, lambda: True) < 10
    assert ("GET /token?type=management", "Bearer api") in api.seen


def test_waiting_ends(
    api: FakeTorchServe, watch: WorkerWatch, models: list[ConfiguredModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PROCESS_START_S", -1)
    api.answers["/models/m/1.0"] = lambda: described(("9000", "UNLOADING", -1))

    with pytest.raises(WorkerFailedError, match=r"not ready after .*: m 1\.0 \(workers are still loading\)"):
        wait_ready(models, watch, lambda: True)
