from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

import ts_handlers
from ts_handlers import cli
from ts_handlers.errors import ConfigError


def verb(error: BaseException | None) -> SimpleNamespace:
    def run(_args: object) -> int:
        if error is not None:
            raise error
        return 3

    return SimpleNamespace(HELP="do nothing", add_arguments=lambda _parser: None, run=run)


@pytest.fixture
def fake_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "VERBS", {"nothing": "fake_verb"})


@pytest.mark.usefixtures("fake_verb")
def test_a_verb_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_verb", verb(None))

    assert cli.main(["nothing"]) == 3


@pytest.mark.usefixtures("fake_verb")
def test_a_mistake_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fake_verb", verb(ConfigError("wrong:\n  this; do that")))

    assert cli.main(["nothing"]) == 2
    assert capsys.readouterr().err == "ts-handlers nothing: error: wrong: this; do that\n"


@pytest.mark.usefixtures("fake_verb")
def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_verb", verb(KeyboardInterrupt()))

    assert cli.main(["nothing"]) == 130


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ts-handlers {ts_handlers.__version__}\n"


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    output = capsys.readouterr().out
    assert all(f" {name} " in output or f" {name}\n" in output for name in cli.VERBS)


@pytest.mark.parametrize("argv", [[], ["no-such-verb"], ["serve"]])
def test_a_command_line_that_cannot_be_read_is_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)


def test_it_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, contextlib\nfrom ts_handlers.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'numpy', 'ts', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
