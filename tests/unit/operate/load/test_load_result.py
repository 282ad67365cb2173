from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.operate.results_of import measured
from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.operate.load.generator import closed_loop, open_loop
from ts_handlers.operate.load.plot import latency_page
from ts_handlers.operate.load.result import (
    LoadResult,
    Samples,
    TimelinePoint,
    describe_errors,
    interval_length_s,
    percentiles,
)


@pytest.fixture
def result() -> LoadResult:
    """A block with a second of errors in it, and one without any request."""
    return replace(
        measured(10.0, 30.0),
        duration_s=3.0,
        num_ok=30,
        errors={"503": 4, "TimeoutError": 1},
        first_error="503 full",
        timeline=(
            TimelinePoint(0.0, 30, 0, 10.0, 30.0),
            TimelinePoint(1.0, 0, 5, None, None),
            TimelinePoint(2.0, 0, 0, None, None),
        ),
    )


Request = tuple[float, float, float, int | None, str]


def answered(due_s: float, latency_s: float, status: int = 200, late_s: float = 0.0) -> Request:
    return due_s, due_s + late_s, due_s + latency_s, status, "" if status == 200 else "body"


def summary(*requests: Request) -> LoadResult:
    samples = Samples(10.0, 12.0)
    for request in requests:
        samples.record(*request)
    samples.close(12.0, 0.5)
    return samples.summarize(concurrency=4, rate=None)


def test_a_request_belongs_to_the_window_it_was_due_in() -> None:
    late = [answered(9.9, 0.5, late_s=0.2), answered(10.0, 0.1, late_s=0.009), answered(11.9, 0.5, late_s=0.02)]
    result = summary(*late)

    assert (result.num_ok, result.num_answered, result.num_late) == (2, 3, 1)
    assert result.p50_ms == pytest.approx(300.0)
    assert result.max_ms == pytest.approx(500.0)
    assert result.requests_per_second == 1.0  # two answers came within the two seconds, one of them to the warm-up


def test_errors_are_named_and_the_first_is_kept() -> None:
    result = summary((10.1, 10.1, 10.2, None, "TimeoutError"), answered(10.3, 0.1, 503), answered(10.4, 0.1, 503))

    assert dict(result.errors) == {"503": 2, "TimeoutError": 1}
    assert result.first_error == "TimeoutError"
    assert (result.num_errors, result.num_answered) == (3, 2)


def test_the_timeline_has_an_interval_for_every_moment() -> None:
    result = summary(answered(10.0, 0.1), answered(10.05, 0.3), answered(11.95, 0.1, 500))

    assert [point.start_s for point in result.timeline] == pytest.approx(np.arange(20) * 0.1)
    assert result.timeline[0].num_ok == 2
    assert result.timeline[0].p50_ms == pytest.approx(200.0)
    assert (result.timeline[1].num_ok, result.timeline[1].p50_ms) == (0, None)
    assert (result.timeline[-1].num_ok, result.timeline[-1].num_errors) == (0, 1)


@pytest.mark.parametrize(
    ("duration_s", "length_s"), [(3.0, 0.1), (20.0, 0.5), (60.0, 1.0), (600.0, 10.0), (1e9, 3600.0)]
)
def test_intervals_are_round_and_at_most_sixty(duration_s: float, length_s: float) -> None:
    assert interval_length_s(duration_s) == length_s


@pytest.mark.parametrize("size", [1, 2, 3, 101])
def test_percentiles_are_linear_between_neighbours(size: int) -> None:
    values = [float(value) for value in np.random.default_rng(size).permutation(size) ** 2]
    ordered = sorted(values)
    low = int((size - 1) * 0.9)
    expected = ordered[low] + (ordered[min(low + 1, size - 1)] - ordered[low]) * ((size - 1) * 0.9 - low)

    assert percentiles(values, (0.0, 0.9, 1.0)) == pytest.approx([ordered[0], expected, ordered[-1]])
    assert percentiles([], (0.5,)) == [None]


def test_a_closed_loop_is_due_now_until_its_end() -> None:
    times = iter([1.0, 4.9, 5.0])

    assert list(closed_loop(5.0, clock=lambda: next(times))) == [1.0, 4.9]


def test_an_open_loop_is_due_at_its_rate_until_its_end() -> None:
    assert list(open_loop(10.0, 11.0, rate=4.0)) == [10.0, 10.25, 10.5, 10.75]


def test_the_words_say_rate_errors_and_latencies(result: LoadResult) -> None:
    assert list(result.describe()) == [
        "10.0 requests/s, 30 answered with 2xx, errors: 4 x 503, 1 x TimeoutError",
        "first error: 503 full",
        "latency in ms: mean 7.5, p50 7.5, p90 15.0, p99 30.0, max 30.0",
    ]
    assert describe_errors({}) == "0"


def test_the_words_say_what_casts_doubt(result: LoadResult) -> None:
    doubtful = replace(result, rate=50.0, num_late=7, client_cpu_s=2.9)

    *_, late, busy = doubtful.describe()

    assert late.startswith("7 requests were sent late")
    assert "97% of a CPU" in busy
    assert result.describe_loop() == "closed loop, 16 in flight"
    assert doubtful.describe_loop() == "open loop, 50 requests/s, at most 16 in flight"


def test_the_words_of_nothing_have_no_latencies() -> None:
    assert list(summary().describe()) == ["0.0 requests/s, 0 answered with 2xx, errors: 0"]


def test_the_page_needs_no_network_and_quotes_its_title(result: LoadResult) -> None:
    page = latency_page(result, "<script>alert(1)</script>")

    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page)
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>" in page
    assert "<script>alert(1)" not in page
    assert "p99 of all: 30.0 ms" in page
    assert "closed loop, 16 in flight, 3.0 s" in page


@pytest.mark.parametrize("known", [{}, {"duration_s": 0.0, "timeline": ()}])  # errors alone; stopped in its warm-up
def test_a_page_without_answers_has_no_percentile_lines(result: LoadResult, known: dict[str, Any]) -> None:
    page = latency_page(replace(result, num_ok=0, p50_ms=None, p90_ms=None, p99_ms=None, **known), "nothing")

    assert "closed loop, 16 in flight" in page
    assert "of all: " not in page


def test_without_plotly_the_extra_is_named(result: LoadResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)

    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'ts_handlers\[operate\]'"):
        latency_page(result, "title")
