from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.operate.configure import command as configure


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--inference-port 8081", "more than one of the server's addresses"),
        ("--initial-worker-port 65530 --workers 9", "no room for 9 workers"),
        ("--cpus 0", "CPU budget is 0"),
        ("--json", "--json is for --check"),
        ("--cpus 64 --launcher", "CPU numbers of another machine cannot be known"),
    ],
)
def test_what_cannot_work_is_refused(
    write_mar: Callable[..., Path], options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", str(write_mar().parent), *options.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        "--workers 1000000000",
        "--batch-size 10000000",
        "--max-batch-delay-ms 100000000",
        "--memory-mb 0",
        "--memory-mb 99999999999999999999999999",
        "--profile fast",
        "--workers 0",
        "--gpus -1",
        "--batch-size x",
        "--inference-port 70000",
        "--inference-host ::1",
        "--cpus many",
    ],
)
def test_an_option_that_cannot_be_read_is_refused(write_mar: Callable[..., Path], options: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["configure", str(write_mar().parent), *options.split()])


def test_its_options_can_be_read_without_a_folder() -> None:
    parser = argparse.ArgumentParser()
    configure.add_arguments(parser)

    assert parser.parse_args(["store"]).profile == "throughput"
