"""Which workers have something to answer: processes of our own in TorchServe's place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ts_handlers.operate.torchserve.process.idle import wait_idle, workers_of

WORKER = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen(1)
if sys.argv[3] == "load":
    time.sleep(60)
connection, _ = listener.accept()
connection.recv(1)
if sys.argv[3] == "sleep":
    time.sleep(60)
if sys.argv[3] == "call":
    other, _ = socket.socketpair()
    other.recv(1)
while sys.argv[3] == "compute":
    pass
connection.recv(1)
"""


@contextmanager
def worker(folder: Path, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that was asked for something, and then does `what`."""
    script, address = folder / "model_service_worker.py", folder / "sock"
    script.write_text(WORKER, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script), "--sock-name", str(address), what]) as process:
        try:
            while not address.exists():
                time.sleep(0.01)
            if what == "load":
                yield process
                return
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(str(address)):
                    time.sleep(0.01)
                client.sendall(b"x")
                time.sleep(0.2)
                yield process
        finally:
            process.kill()


def test_a_worker_that_waits_for_its_next_request_is_idle(tmp_path: Path) -> None:
    with worker(tmp_path, "wait") as process:
        assert list(workers_of(os.getpid())) == [process.pid]
        assert wait_idle(os.getpid(), 30) == ""


@pytest.mark.parametrize("what", ["sleep", "compute", "call", "load"])
def test_a_worker_that_does_something_is_busy_whatever_it_is(what: str, tmp_path: Path) -> None:
    with worker(tmp_path, what):
        assert wait_idle(os.getpid(), 1) == "1 of 1 workers have not answered yet"


@pytest.mark.parametrize(("what", "left"), [("compute", "1 of 1 workers have not answered yet"), ("wait", "")])
def test_where_the_kernel_does_not_tell_cpu_time_does(
    what: str, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def refuse(path: Path, *arguments: object, **options: object) -> str:
        if path.name == "syscall":
            raise PermissionError(path)
        return read(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    with worker(tmp_path, what):
        assert wait_idle(os.getpid(), 2 if left else 30) == left
