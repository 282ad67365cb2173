from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.operate.load.generator import closed_loop, open_loop
from ts_handlers.operate.load.plot import latency_page
from ts_handlers.operate.load.result import LoadResult, Samples, describe_errors, interval_length_s, percentiles

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
    result = summary(answered(9.9, 0.5), answered(10.0, 0.1), answered(11.9, 0.5))

    assert (result.num_ok, result.num_answered) == (2, 3)
    assert result.p50_ms == pytest.approx(300.0)
    assert result.max_ms == pytest.approx(500.0)
    assert result.requests_per_second == 1.0  # two answers came within the two seconds, one of them to the warm-up


def test_only_what_was_sent_late_is_late() -> None:
    result = summary(
        answered(9.0, 3.0, late_s=1.0), answered(10.0, 0.1, late_s=0.009), answered(11.0, 0.1, late_s=0.02)
    )

    assert result.num_late == 1


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


def test_json_round_trip(result: LoadResult) -> None:
    assert LoadResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_words_say_rate_errors_and_latencies(result: LoadResult) -> None:
    assert list(result.describe()) == [
        "10.0 requests/s, 30 answered with 2xx, errors: 4 x 503, 1 x TimeoutError",
        'first error: 503 {"code": 503}',
        "latency in ms: mean 11.0, p50 10.0, p90 20.0, p99 30.0, max 40.0",
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


class _Outside(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name in {"src", "href"} and value]


def test_the_page_needs_no_network_and_quotes_its_title(result: LoadResult) -> None:
    page = latency_page(result, "<script>alert(1)</script>")

    outside = _Outside()
    outside.feed(page)
    assert outside.found == []
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>" in page
    assert "<script>alert(1)" not in page
    assert re.search(r"p99 of all: 30\.0 ms", page)
    assert re.search(r"closed loop, 16 in flight, 3\.0 s", page)


def test_a_page_of_errors_alone_has_no_percentile_lines(result: LoadResult) -> None:
    page = latency_page(replace(result, num_ok=0, p50_ms=None, p90_ms=None, p99_ms=None), "all failed")

    assert "of all: " not in page


def test_a_page_of_a_load_that_was_stopped_in_its_warmup_is_empty(result: LoadResult) -> None:
    page = latency_page(replace(result, duration_s=0.0, timeline=(), p50_ms=None, p90_ms=None, p99_ms=None), "nothing")

    assert "closed loop, 16 in flight, 0.0 s" in page


def test_without_plotly_the_extra_is_named(result: LoadResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)

    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'ts_handlers\[operate\]'"):
        latency_page(result, "title")
