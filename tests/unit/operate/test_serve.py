"""What `serve` checks and decides, without TorchServe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.config_texts import MODELS, config_text
from ts_handlers.cli import main
from ts_handlers.errors import OperatorError
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.serve import claim_run_folder, frontend_environ
from ts_handlers.operate.torchserve.config import read_config


def test_a_folder_that_was_not_configured_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    assert f"write it with: ts-handlers configure {tmp_path}" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, write_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(MODELS)

    assert main(["serve", str(tmp_path / "gone"), "--config", str(config)]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_log_configuration_that_is_not_there_is_said(
    tmp_path: Path, write_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(MODELS)

    assert main(["serve", str(tmp_path), "--log-config", "gone.xml"]) == 2
    assert "no log configuration" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e400", "9" * 400])
def test_a_grace_that_is_no_number_of_seconds_is_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "folder", f"--stop-grace-s={text}"])
    assert "is not a whole number, 0 to 86400" in capsys.readouterr().err


def test_a_run_folder_is_held_by_one_server(tmp_path: Path) -> None:
    with claim_run_folder(tmp_path / "run") as folder:
        assert folder.key_file == tmp_path / "run" / "key_file.json"
        assert folder.logs == tmp_path / "run" / "logs"
        with pytest.raises(OperatorError, match="another server runs in"), claim_run_folder(tmp_path / "run"):
            pass
    with claim_run_folder(tmp_path / "run"):
        pass


def test_a_run_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OperatorError, match="choose another --run-dir"), claim_run_folder(tmp_path / "file" / "run"):
        pass


def test_workers_learn_how_many_share_the_machine(write_config: Callable[[str], Path]) -> None:
    config = read_config(write_config(MODELS))
    environ = frontend_environ(config, Path("/jdk"), {"TS_CONFIG_FILE": "other", "PATH": "/bin"})

    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), threads)
    ours = {"TS_HANDLERS_WORKERS": "2", "TS_HANDLERS_MAX_RESPONSE_SIZE": "6553500"}
    assert environ == {"PATH": "/bin", "JAVA_HOME": "/jdk"} | ours | pools


def test_workers_learn_how_large_an_answer_may_be(write_config: Callable[[str], Path]) -> None:
    config = read_config(write_config(MODELS + "max_response_size=70000\n"))
    assert frontend_environ(config, Path("/jdk"), {})["TS_HANDLERS_MAX_RESPONSE_SIZE"] == "70000"
    assert frontend_environ(config, Path("/jdk"), {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_a_background_server_that_cannot_start_says_why(write_config: Callable[[str], Path], tmp_path: Path) -> None:
    write_config(config_text())
    server = BackgroundServer(tmp_path, options=["--log-config", "gone.xml"])

    with pytest.raises(OperatorError, match="call start"):
        server.stop()
    with pytest.raises(OperatorError, match=r"ended with code 2: ts-handlers serve: error: .*gone\.xml"), server:
        pass
