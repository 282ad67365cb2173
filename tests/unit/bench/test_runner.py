"""The one loop of the benchmarks: whose turn it is, what is charged to whom, and the arithmetic of ratios."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.__main__ import main
from bench.experiments import autoscale
from bench.experiments.workers import best_ratios
from bench.process import CpuTime
from bench.report import Block, Ratio, sides_table
from bench.runner import Run, add_options
from bench.side import Served


def block(side: str, rate: float, round_: int = 1, **values: Any) -> Block:
    facts: dict[str, Any] = {"p50_ms": 10.0, "p99_ms": 20.0, "num_answered": int(rate * 10), "errors": {}}
    return Block(side, round_, rate, **facts | values)


class Fake:
    """A side that says when it is started, loaded and ended."""

    def __init__(self, name: str, rate: float, said: list[str]) -> None:
        self.name, self._rate, self._said = name, rate, said

    def prepare(self) -> None:
        self._said.append(f"make {self.name}")

    @contextmanager
    def serve(self) -> Iterator[Served]:
        self._said.append(f"start {self.name}")
        yield Served(1, send=self._send)
        self._said.append(f"end {self.name}")

    def _send(self, seconds: float) -> dict[str, Any]:
        self._said.append(f"load {self.name} {seconds:g}")
        found: dict[str, Any] = {"requests_per_second": self._rate, "num_answered": 9, "errors": {}}
        return found | {"p50_ms": None, "p99_ms": None}


def run_of(tmp_path: Path, *words: str) -> Run:
    parser = argparse.ArgumentParser()
    add_options(parser, seconds=5.0, warmup_seconds=2.0)
    parser.set_defaults(work_dir=tmp_path / "work", json=tmp_path / "out.json")
    return Run(parser.parse_args(words))


def test_sides_are_made_once_then_started_loaded_alike_and_ended_in_turn(tmp_path: Path) -> None:
    said: list[str] = []
    run = run_of(tmp_path, "--rounds", "2")
    blocks = run.measure([Fake("a", 30.0, said), Fake("b", 10.0, said)], run.load(tmp_path))
    turn = [f"{what} {{0}}{seconds}" for what, seconds in (("start", ""), ("load", " 2"), ("load", " 5"), ("end", ""))]
    turns = [line.format(side) for side in "abab" for line in turn]
    assert said == ["make a", "make b", *turns]
    assert [(one.side, one.round) for one in blocks] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


@pytest.mark.parametrize(("aim", "errors", "code"), [(3.0, {}, 0), (3.1, {}, 1), (None, {"503": 2}, 1)])
def test_a_missed_aim_or_an_error_is_the_exit_code(
    tmp_path: Path, aim: float | None, errors: dict[str, int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [block("ours", 30.0, errors=errors), block("stock", 10.0)]
    assert run_of(tmp_path).report(blocks, [Ratio("ours", "stock", aim)], more_facts=[1]) == code
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["ratios"], written["more_facts"]) == ({"ours / stock": [3.0]}, [1])
    assert written["blocks"][0]["requests_per_second"] == 30.0
    assert "ours / stock: 3.00x (3.00 to 3.00)" in capsys.readouterr().out


def test_a_ratio_is_taken_round_by_round() -> None:
    rates = {"a": (400.0, 600.0, 450.0), "b": (40.0, 50.0, 50.0)}
    blocks = [block(side, rate, number) for side, mine in rates.items() for number, rate in enumerate(mine)]
    ratio = Ratio("a", "b", 10.5)
    assert ratio.of(blocks) == [10.0, 12.0, 9.0]
    assert ratio.describe(blocks) == "a / b: 10.00x (9.00 to 12.00); aim 10.5x: MISSED"
    assert Ratio("b", "a").of(blocks[:4]) == [0.1]  # rounds that both have
    nothing = [block("a", 9.0), block("b", 0.0)]
    assert (ratio.describe(nothing), ratio.is_missed(nothing)) == ("a / b: not measured", False)


def test_the_table_has_medians_every_error_and_cpu_time_by_answers() -> None:
    rows = sides_table(
        [
            block("a", 30.0, cpu=CpuTime(6.0), errors={"503": 1}, num_answered=300),
            block("a", 50.0, 2, cpu=CpuTime(5.0), p99_ms=None, num_answered=500),
            block("b", 0.0, num_answered=0),
        ]
    ).splitlines()
    assert {len(row) for row in rows} == {len(rows[0])}
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[2][:7] == ["a", "30.0, 50.0", "40.0", "10.0", "20.0", "1", "15.00"]
    assert cells[3][6] == "-"


def test_workers_are_compared_with_the_best_of_their_own_side_and_ours_has_a_floor() -> None:
    rates = {"minilm ours w1": 100.0, "minilm ours w8": 84.0, "minilm stock w1": 40.0, "minilm stock w8": 9.0}
    blocks = [block(name, rate) for name, rate in rates.items()]
    ratios = best_ratios(blocks)
    assert [ratio.of(blocks) for ratio in ratios] == [[0.84], [0.225]]
    assert [ratio.is_missed(blocks) for ratio in ratios] == [True, False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers", "--models", "minilm"], "--pytorch-serve"),
        (["autoscaling", "--hours", "25"], "--hours is 25"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.end_on_signals", lambda: None)
    assert main([*words, "--work-dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def phase(*workers: int, **lost: int) -> autoscale.PhaseResult:
    seen = [(float(second), count) for second, count in enumerate(workers)]
    return autoscale.PhaseResult(autoscale.parse_phase("60:5"), 298, 2, dict(lost), 9.4, None, seen)
