from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.process import BenchError
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json


@pytest.fixture(autouse=True)
def _keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.shared.exit_on_signals", lambda: None)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_load_options(parser, warmup_seconds=5.0, rounds=2)
    add_place_options(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_the_benchmarks(code: int) -> None:
    assert run_benchmark("x", lambda: code) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BenchError("no such model"), 2, "bench x: no such model\n"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "\nbench x: interrupted; everything it started is stopped\n"),
    ],
)
def test_what_ends_a_benchmark_early_is_a_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert run_benchmark("x", fail) == code
    assert capsys.readouterr().err == said


def test_a_bug_is_not_taken_for_a_mistake() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_benchmark("x", fail)


def test_what_was_found_is_written_with_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = options("--json", str(tmp_path / "out.json"), "--rounds", "7")
    write_json(args, {"cpus": 2})
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["cpus"] == 2
    assert (written["options"]["rounds"], written["options"]["warmup_seconds"]) == ("7", "5.0")
    assert "out.json" in capsys.readouterr().out
    write_json(options(), {"cpus": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_the_work_dir_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_work_dir(options("--work-dir", "a/b")) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
