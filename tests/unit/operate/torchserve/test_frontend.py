"""The frontend as a child process; the frontends here are shell commands."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.unit.operate.config_texts import MODELS
from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.process.frontend import Frontend, frontend_command, torchserve_folder
from ts_handlers.operate.torchserve.process.java import Java


@pytest.mark.parametrize(("version", "is_new"), [(17, False), (25, True)])
def test_the_command_is_the_one_torchserve_runs(
    write_config: Callable[[str], Path], tmp_path: Path, version: int, *, is_new: bool
) -> None:
    config = read_config(write_config(MODELS + "vmargs=-Xmx1g -XX:+UseSerialGC\nplugins_path=/plugins\n"))
    java = Java(Path("/jdk/bin/java"), Path("/jdk"), version, "JAVA_HOME")
    package = torchserve_folder()

    command = frontend_command(java, config, tmp_path, temporary=Path("/scratch"))

    assert command[:2] == ["/jdk/bin/java", f"-Dmodel_server_home={package.parent}"]
    assert command[2].startswith("-Dlog4j.configurationFile=file:///")
    assert "-Djava.io.tmpdir=/scratch" in command
    assert ("--sun-misc-unsafe-memory-access=allow" in command) == is_new
    assert command[command.index("-Xmx1g") :] == [
        *("-Xmx1g", "-XX:+UseSerialGC", "-cp", f"{package}/frontend/*:/plugins/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(config.path), "-s", str(tmp_path), "-ncs"),
    ]


@pytest.mark.parametrize("has_package", [True, False])
def test_without_torchserve_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_package: bool
) -> None:
    spec = importlib.machinery.ModuleSpec("ts", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec if has_package else None)

    with pytest.raises(OperatorError, match="pip install torchserve"):
        torchserve_folder()


def shell(script: str, tmp_path: Path) -> Frontend:
    return Frontend(["/bin/sh", "-c", script], working_folder=tmp_path, environ=os.environ)


def wait_for(file: Path) -> str:
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return file.read_text()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_frontend_s(tmp_path: Path, script: str, code: int) -> None:
    with shell(script, tmp_path) as frontend:
        assert frontend.wait() == code


def test_a_frontend_is_asked_first_and_killed_when_it_does_not_listen(tmp_path: Path) -> None:
    with shell("trap '' TERM; sleep 60 & echo $! > worker; wait; sleep 60", tmp_path) as frontend:
        worker = int(wait_for(tmp_path / "worker"))
        start = time.monotonic()
        frontend.stop(0.3)

    assert 0.3 <= time.monotonic() - start < 5
    assert frontend.poll() == -signal.SIGKILL
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_workers_do_not_outlive_a_frontend_that_ends(tmp_path: Path) -> None:
    with shell("sleep 60 & echo $! > worker; exit 1", tmp_path) as frontend:
        worker = int(wait_for(tmp_path / "worker"))
        assert frontend.wait() == 1

    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


IDLE_INIT = """
import ctypes, subprocess, sys
from pathlib import Path
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come here, and nobody collects them
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
assert not Path(f"/proc/{Path('worker').read_text().strip()}").exists(), "a dead worker was left"
"""

STOP_ONE = """
import ctypes, os, signal, sys, time
from pathlib import Path
from ts_handlers.operate.torchserve.process.frontend import Frontend
command = ["/bin/sh", "-c", "sleep 60 & echo $! > worker; wait"]
with Frontend(command, working_folder=Path.cwd(), environ=os.environ) as frontend:
    while not Path("worker").exists() or not Path("worker").read_text().endswith("\\n"):
        time.sleep(0.01)
    frontend.stop(0.0)
is_subreaper = ctypes.c_int(-1)
ctypes.CDLL(None).prctl(37, ctypes.byref(is_subreaper))
assert is_subreaper.value == 0, "only while a frontend is stopped"
"""


def test_workers_are_collected_where_the_first_process_collects_nobody(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", IDLE_INIT, STOP_ONE], cwd=tmp_path, check=True, timeout=60)


def test_a_frontend_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom ts_handlers.operate.torchserve.process.frontend import Frontend\n"
        f"Frontend(['/bin/sh', '-c', 'echo $$ > java; exec sleep 60'], working_folder=Path({str(tmp_path)!r}), "
        "environ=os.environ).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        java = psutil.Process(int(wait_for(tmp_path / "java")))
        parent.kill()
        parent.wait()
        assert psutil.wait_procs([java], timeout=5)[1] == []


def test_a_java_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot start"):
        Frontend([str(tmp_path / "java")], working_folder=tmp_path, environ={})
