from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import yaml

from ts_handlers.cli import main
from ts_handlers.operate.torchserve.process.ports import free_ports

DEAD = {"management_url": "http://127.0.0.1:1", "metrics_url": "http://127.0.0.1:1/metrics"}


def write(folder: Path, **content: object) -> Path:
    file = folder / "autoscale.yaml"
    file.write_text(yaml.safe_dump({"models": {"m": {}}, "torchserve": DEAD, **content}))
    return file


def stop_soon() -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("options", [[], ["--dry-run", "--verbose"]])
def test_it_waits_for_torchserve_until_a_signal_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (port,) = free_ports(1)
    before = signal.getsignal(signal.SIGTERM)
    stopper = threading.Thread(target=stop_soon)
    stopper.start()
    assert main(["autoscale", "--config", str(write(tmp_path, metrics={"port": port})), *options]) == 0
    stopper.join()
    output = capsys.readouterr().out
    assert f"scaling m of http://127.0.0.1:1 on this machine; metrics on http://127.0.0.1:{port}/metrics" in output
    assert ("dry run: nothing is changed" in output) is bool(options)
    assert output.count("no answer of http://127.0.0.1:1: Connection refused") == 1
    assert output.splitlines()[-1].endswith("INFO stopped (SIGTERM); the workers stay as they are")
    assert signal.getsignal(signal.SIGTERM) is before
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["autoscale", "--config", str(write(tmp_path, metrics={"port": port}))]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another metrics.port" in (
        capsys.readouterr().err
    )
    config = write(tmp_path, kubernetes={"service_account": str(tmp_path)}, budget={"max_cpus": 2})
    assert main(["autoscale", "--config", str(config)]) == 2
    assert (
        "is a service account mounted (kubernetes.service_account)? See kubernetes.namespace" in capsys.readouterr().err
    )
