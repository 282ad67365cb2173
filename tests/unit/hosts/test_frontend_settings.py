from __future__ import annotations

import os
from pathlib import Path

import pytest

from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.errors import ConfigError
from ts_handlers.hosts.torchserve.frontend import max_response_bytes

JAVA = ("java", "-cp", "x", "org.pytorch.serve.ModelServer", "--python", "python")
CONFIG = "# max_response_size=1\nmax_response_size=2\n  max_response_size : 70000 \nmax_request_size=3\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "config.properties").write_text(CONFIG)
    return tmp_path


def process(root: Path, pid: int, *command: str, parent: int = 0) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes("\0".join(command).encode())
    (folder / "stat").write_text(f"{pid} (a (name) S {parent} 1 1 0")
    (folder / "cwd").symlink_to(root)


def test_the_environment_goes_first(root: Path) -> None:
    process(root, os.getppid(), *JAVA, "-f", "config.properties")
    assert max_response_bytes({"TS_HANDLERS_MAX_RESPONSE_SIZE": " 80000"}, root) == 80_000


@pytest.mark.parametrize("text", ["", "0", "-1", "7x", "\u0667", "9" * 5000])
def test_an_environment_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="TS_HANDLERS_MAX_RESPONSE_SIZE is"):
        max_response_bytes({"TS_HANDLERS_MAX_RESPONSE_SIZE": text})


@pytest.mark.parametrize("option", ["-f", "--ts-config-file"])
def test_the_frontends_own_file_is_read(root: Path, option: str) -> None:
    process(root, os.getppid(), *JAVA, option, "config.properties", "-s", "store")
    assert max_response_bytes({}, root) == 70_000


def test_a_launcher_may_stand_between(root: Path) -> None:
    process(root, os.getppid(), "python", "-m", "launcher", parent=7)
    process(root, 7, *JAVA, "-f", str(root / "config.properties"))
    assert max_response_bytes({}, root) == 70_000


@pytest.mark.parametrize(
    "command", [("bash", "-f", "config.properties"), JAVA, (*JAVA, "-f"), (*JAVA, "-f", "none"), (*JAVA, "-f", "proc")]
)
def test_else_it_is_torchserves_default(root: Path, command: tuple[str, ...]) -> None:
    assert max_response_bytes({}, root) == DEFAULT_BODY_BYTES
    process(root, os.getppid(), *command)
    assert max_response_bytes({}, root) == DEFAULT_BODY_BYTES
