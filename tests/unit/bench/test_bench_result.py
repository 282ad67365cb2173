from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.report import Block, Report, errors_text, table
from bench.result import LoadResult, percentile, ratio, summarize


def block(rate: float, *, p50_ms: float | None = 10.0, errors: dict[str, int] | None = None) -> LoadResult:
    return LoadResult(
        clients=16,
        seconds=10.0,
        num_ok=int(rate * 10),
        num_answered=int(rate * 15),
        errors=errors or {},
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=p50_ms,
        client_cpu_seconds=1.0,
    )


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 101])
def test_percentile_is_the_one_of_numpy(q: float, size: int) -> None:
    values = [float(value) for value in np.random.default_rng(size).permutation(size) ** 2]
    assert percentile(values, q) == pytest.approx(float(np.quantile(values, q)))


def test_percentile_of_nothing_is_none() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("q", [-0.1, 1.1, 99.0])
def test_percentile_refuses_what_is_no_quantile(q: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        percentile([1.0], q)


def test_from_samples_counts_only_successes_in_the_rate() -> None:
    result = LoadResult.from_samples(
        [10.0, 30.0], {"503": 8}, clients=2, seconds=4.0, num_answered=12, client_cpu_seconds=0.5
    )
    assert result.requests_per_second == 0.5
    assert result.p50_ms == 20.0
    assert result.num_errors == 8


def test_from_samples_of_a_block_without_successes() -> None:
    result = LoadResult.from_samples([], {"503": 8}, clients=2, seconds=4.0, num_answered=8, client_cpu_seconds=0.5)
    assert result.requests_per_second == 0.0
    assert (result.p50_ms, result.p99_ms) == (None, None)


def test_json_round_trip() -> None:
    result = block(40.0, errors={"503": 1})
    written = json.loads(json.dumps(result.to_json()))
    assert written["requests_per_second"] == 40.0
    assert LoadResult.from_json(written) == result


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


def test_report_has_medians_ratio_and_leaves_the_search_out() -> None:
    report = Report(
        machine={},
        sides={"stock": {}, "ours": {}},
        blocks=[
            Block(0, "stock", block(1.0), 15.0, 1.5, None),
            Block(1, "stock", block(40.0), 15.0, 1.5, 0.01),
            Block(1, "ours", block(600.0, errors={"503": 2}), 15.0, 30.0, 0.02),
        ],
        agreement="same",
    )
    text = report.to_text()
    assert "ours / stock: 15.0x (rounds 15.0x to 15.0x)" in text
    assert "| search | stock |" in text
    assert "2 x 503" in text
    assert report.to_json()["summary"]["stock"]["requests_per_second"] == 40.0
    assert report.to_json()["blocks"][2]["cpu_ms_per_request"] == pytest.approx(30_000 / 9_000)


def test_report_of_one_side_has_no_ratio() -> None:
    report = Report({}, {"stock": {}}, [Block(1, "stock", block(40.0), 15.0, 1.5, None)])
    assert report.to_json()["ratio"] is None


def test_table_is_aligned() -> None:
    lines = table([["a", "long head"], ["value", "b"]]).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert errors_text({}) == "0"
