from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.comparison import Comparison
from bench.report import Block, machine, table
from bench.result import ratio, summarize

from ts_handlers.operate.load.result import LoadResult


def block(rate: float, *, p50_ms: float | None = 10.0, errors: dict[str, int] | None = None) -> LoadResult:
    return LoadResult(
        concurrency=16,
        rate=None,
        duration_s=10.0,
        num_ok=int(rate * 10),
        num_answered=int(rate * 15),
        errors=errors or {},
        first_error=None,
        requests_per_second=rate,
        mean_ms=p50_ms,
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=p50_ms,
        max_ms=p50_ms,
        client_cpu_s=1.0,
        num_late=0,
        timeline=(),
    )


def test_summarize_takes_medians_and_adds_errors() -> None:
    summary = summarize([block(30.0, errors={"503": 1}), block(50.0, p50_ms=None), block(41.0, errors={"503": 2})])
    assert summary.requests_per_second == 41.0
    assert summary.p50_ms == 10.0
    assert summary.errors == {"503": 3}


def test_ratio_is_taken_round_by_round() -> None:
    found = ratio([block(400.0), block(600.0), block(450.0)], [block(40.0), block(50.0), block(50.0)])
    assert found is not None
    assert (found.low, found.median, found.high) == (9.0, 10.0, 12.0)


def test_ratio_over_a_side_that_answered_nothing_is_not_a_number() -> None:
    assert ratio([block(400.0)], [block(0.0)]) is None


def test_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="needs pairs"):
        ratio([block(400.0)], [])


def test_a_comparison_has_medians_and_ours_over_each_other_side_and_leaves_the_search_out() -> None:
    comparison = Comparison(
        machine={},
        sides={"stock": {}, "fastapi": {}, "ours": {}},
        blocks=[
            Block(0, "stock", block(1.0), 15.0, 1.5, None),
            Block(1, "stock", block(40.0), 15.0, 1.5, 0.01),
            Block(1, "fastapi", block(500.0), 15.0, 30.0, 0.01),
            Block(1, "ours", block(600.0, errors={"503": 2}), 15.0, 30.0, 0.02),
        ],
        ours="ours",
        agreement="same",
    )
    text = comparison.to_text()
    assert "ours / stock: 15.00x (rounds 15.00x to 15.00x)" in text
    assert "ours / fastapi: 1.20x" in text
    assert "| search | stock " in text
    assert "2 x 503" in text
    assert text.endswith("same")
    written = comparison.to_json()
    assert written["summary"]["stock"]["requests_per_second"] == 40.0
    assert written["blocks"][3]["cpu_ms_per_request"] == pytest.approx(30_000 / 9_000)
    assert set(written["ratios"]) == {"ours / stock", "ours / fastapi"}


@pytest.mark.parametrize("side", ["stock", "ours"])
def test_a_comparison_of_one_side_has_no_ratio(side: str) -> None:
    comparison = Comparison({}, {side: {}}, [Block(1, side, block(40.0), 15.0, 1.5, None)], "ours")
    assert comparison.to_json()["ratios"] == {}


def test_a_side_that_answered_nothing_has_no_ratio() -> None:
    blocks = [Block(1, "stock", block(0.0), 15.0, 1.5, None), Block(1, "ours", block(9.0), 15.0, 1.5, None)]
    assert Comparison({}, {"stock": {}, "ours": {}}, blocks, "ours").ratios() == {}


def test_table_is_aligned() -> None:
    lines = table([["a", "long head"], ["value", "b"]]).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_machine_is_named() -> None:
    facts = machine()
    assert facts["cpu"]
    assert int(facts["cpus_usable"]) >= 1
