from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.configure.written import configured
from ts_handlers.cli import main
from ts_handlers.operate.configure import command as configure
from ts_handlers.operate.torchserve import properties


def test_what_it_wrote_passes_the_check(write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = write_mar("mini").parent
    configured(store)
    capsys.readouterr()

    assert main(["configure", "--check", str(store / "config.properties")]) == 0
    assert capsys.readouterr().out.endswith("config.properties: 0 problems, 0 warnings and hints\n")


def test_a_file_with_problems_fails_the_check(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_mar("mini").parent / "foreign.properties"
    file.write_text(f"model_store={file.parent}\nmodels={{}}\njob_queue_sise=5\n")

    assert main(["configure", "--check", str(file)]) == 1
    output = capsys.readouterr().out
    assert "problem: job_queue_sise: no key of TorchServe's: it is ignored" in output
    assert "write job_queue_size" in output

    assert main(["configure", "--check", str(file), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["file"] == str(file)
    assert set(content["findings"][0]) == {"severity", "key", "seen", "why", "remedy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check", "gone.properties"], "cannot read gone.properties"),
        (["store", "--check", "x"], "leave store out"),
        ([], "no folder is given"),
    ],
)
def test_what_cannot_be_checked_is_a_mistake(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_escape_that_java_refuses_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.properties"
    file.write_text("model_store=C:\\users\n")

    assert main(["configure", "--check", str(file)]) == 2
    assert "four hexadecimal digits" in capsys.readouterr().err


def test_a_plan_that_fails_its_own_check_is_our_bug_and_nothing_is_replaced(
    write_mar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_mar("mini").parent
    configured(store)
    before = (store / "config.properties").read_text()
    metrics = store / "metrics.yaml"
    metrics.write_text(metrics.read_text() + "# an older one\n")
    monkeypatch.setattr(configure, "make_entries", lambda *_, **__: [properties.Entry("job_queue_size", "0")])

    assert main(["configure", str(store)]) == 2
    assert "this is a bug of ts-handlers" in capsys.readouterr().err
    assert (store / "config.properties").read_text() == before
    assert metrics.read_text().endswith("# an older one\n")


def test_an_archive_that_cannot_be_loaded_is_refused_and_nothing_is_written(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_mar("mini", **{"tokenizers.py": ""}).parent

    assert main(["configure", str(store)]) == 2
    error = capsys.readouterr().err
    assert "mini-1.0.mar: it brings tokenizers.py" in error
    assert "bug of ts-handlers" not in error
    assert [path.name for path in store.iterdir()] == ["mini-1.0.mar"]
