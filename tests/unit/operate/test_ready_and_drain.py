"""`ready` and `drain` of a server that is a fake; test_pod_hooks_e2e.py has a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.operate.fake_torchserve import FakeTorchServe, described, fake_torchserve
from ts_handlers.cli import main
from ts_handlers.operate import drain


@pytest.fixture(autouse=True)
def quiet_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_POLL_S", 0.01)
    monkeypatch.setattr(drain, "_QUIET_S", 0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeTorchServe]:
    (tmp_path / "run").mkdir()
    with fake_torchserve(tmp_path / "run" / "key_file.json") as fake:
        fake.answers["/models/a/1.0"] = described(("9000", "READY", os.getpid()), ("9001", "UNLOADING", -1))
        yield fake


@pytest.fixture
def config(server: FakeTorchServe, write_config: Callable[[str], Path]) -> str:
    models = 'models={"a": {"1.0": {"minWorkers": 2}}}\n'
    return str(write_config(f"{models}management_address={server.url}\n"))


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*words]), capsys.readouterr().out

    return run


def test_both_go_on_when_the_token_has_expired(
    server: FakeTorchServe, config: str, says: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --token-expiration-min 1 both said "not" of every server that was older than a minute."""
    monkeypatch.setattr(drain, "is_waiting", lambda *_: True)
    server.expire()
    assert says("ready", "--config", config) == (0, "ready: a 1.0\n")
    server.expire()
    code, said = says("drain", "--config", config, "--settle-s", "0", "--timeout-s", "5")
    assert (code, said.partition(" ")[0]) == (0, "drained")


def test_what_is_not_ready_is_said(
    server: FakeTorchServe, config: str, says: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    server.answers["/models/a/1.0"] = described(("9000", "UNLOADING", -1))
    assert says("ready", "--config", config) == (1, "not ready: a 1.0: no worker is READY (1 loading)\n")
    server.answers["/models/a/1.0"] = described()
    assert says("ready", "--config", config) == (1, "not ready: a 1.0: no worker is READY (there is none)\n")
    code, said = says("ready", "--config", config, "--run-dir", str(tmp_path))
    assert (code, "no token of TorchServe in" in said) == (1, True)


def test_what_is_not_drained_is_said(
    server: FakeTorchServe, config: str, says: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("drain", "--config", config, "--settle-s", "0", "--timeout-s", "1")
    monkeypatch.setattr(drain, "is_waiting", lambda *_: False)
    assert says(*arguments) == (1, "not drained after 1 s: 1 of 1 workers have not answered yet\n")
    server.answers["/models/a/1.0"] = described(queued=3)
    assert says(*arguments) == (1, "not drained after 1 s: a 1.0 has 3 in its queue\n")
    server.answers["/models/a/1.0"] = (500, {"message": "broken"})
    assert says(*arguments)[1].endswith("a 1.0: TorchServe does not describe a: status 500, broken\n")


def test_a_worker_that_has_ended_is_not_waited_for(
    server: FakeTorchServe, config: str, says: Callable[..., tuple[int, str]]
) -> None:
    server.answers["/models/a/1.0"] = described(("9000", "READY", 2**22 + 1))
    assert says("drain", "--config", config, "--settle-s", "0", "--timeout-s", "5")[0] == 0
