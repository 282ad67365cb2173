"""The report of `tune` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import OpenPage, open_chromium
from ts_handlers.operate.tune.objective import Measurement, Objective, Verdict
from ts_handlers.operate.tune.report import report_page
from ts_handlers.operate.tune.results import Outcome, Results, Subject, Trial
from ts_handlers.operate.tune.space import Setting

pytestmark = pytest.mark.e2e

DEFAULT = Setting(2, 1, 8, 1)
BEST = Setting(4, 1, 32, 5)
HOSTILE = "</script><script>document.title = 'broken'</script><img src=http://127.0.0.1:9/x>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with open_chromium() as chromium:
        yield chromium


def measured(rate: float, p99_ms: float) -> Measurement:
    return Measurement(rate, p99_ms / 4, p99_ms / 2, p99_ms, 100)


@pytest.fixture(scope="module")
def results() -> Results:
    """A finished search of ten settings, one of which failed with a reason that would be markup."""
    subject = Subject(f"model {HOSTILE}", "aa", "bb", {"concurrency": 16.0}, {"CPU": HOSTILE})
    known = Results(Path("results.json"), subject, DEFAULT, Objective(slo_p99_ms=150.0))
    settings = [DEFAULT, BEST, *(Setting(workers, 1, 8, 1) for workers in (1, 3, 4, 5, 6, 10, 12))]
    for index, setting in enumerate(settings):
        known.trials.append(Trial(setting, 0, 5, 6.5, 12, measured(100 + 7 * index % 30, 40 + 23 * index)))
    known.trials.append(Trial(Setting(64, 1, 8, 1), 0, 5, 0, 12, None, HOSTILE))
    for setting, rate in ((BEST, 180.0), (DEFAULT, 110.0)) * 2:
        known.trials.append(Trial(setting, None, 15, 6.5, 22, measured(rate, 60)))
    verdict = Verdict(is_better=True, is_met=True, gain=1.64, reason="its worst block beats the default's best")
    known.outcome = Outcome(BEST, BEST, verdict, is_met=True)
    return known


@pytest.fixture(scope="module")
def report(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(results), encoding="utf-8")
    return path


@pytest.fixture(params=["light", "dark"])
def opened(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """The report, open; in the end it has said nothing and asked for nothing but itself."""
    scheme: Literal["light", "dark"] = request.param
    page = browser.new_page(color_scheme=scheme)
    opened = OpenPage(page, report)
    yield opened
    assert opened.said == []
    assert opened.requests == [report.as_uri()]
    page.close()


def test_the_chart_has_a_point_for_each_setting_that_was_measured(opened: OpenPage) -> None:
    points = opened.page.locator("#chart path.point")
    assert points.count() == 9
    boxes = [points.nth(index).bounding_box() for index in range(9)]
    assert all(box is not None and box["width"] > 3 and box["height"] > 3 for box in boxes)
    assert len({(round(box["x"]), round(box["y"])) for box in boxes if box}) == 9
    assert opened.page.locator("#chart .scatterlayer .js-line").count() == 1  # the front
    assert opened.page.locator("#chart .annotation").text_content() == "p99 bound 150 ms"
    legend = opened.page.locator("#chart .legendtext").all_text_contents()
    assert legend == ["Pareto front", "tried", "configure's default", "chosen"]


def test_a_point_says_its_setting(opened: OpenPage) -> None:
    opened.page.locator("#chart .scatterlayer .trace").last.locator("path.point").hover(force=True)
    text = opened.page.locator("#chart .hoverlayer .hovertext").first.text_content()
    assert text == "4 workers x 1 thread, batch 32, delay 5 ms180.0 requests/s, p99 60.0 ms"


def test_the_table_sorts_both_ways_by_number_and_leaves_what_failed_last(opened: OpenPage) -> None:
    number = opened.button("requests/s")
    before = opened.column(number)
    assert len(before) == 14
    assert opened.order("requests/s") == "none"
    head = opened.page.locator("#trials th button").nth(number)
    figures = [float(text) for text in before if text]
    head.click()
    assert opened.column(number) == [*(f"{rate:.1f}" for rate in sorted(figures)), ""]
    assert opened.order("requests/s") == "ascending"
    head.click()
    assert opened.column(number) == [*(f"{rate:.1f}" for rate in sorted(figures, reverse=True)), ""]
    assert opened.order("requests/s") == "descending"


def test_the_table_sorts_by_keyboard_and_one_column_at_a_time(opened: OpenPage) -> None:
    opened.page.locator("#trials th button").nth(opened.button("requests/s")).click()
    workers = opened.button("workers")
    opened.page.locator("#trials th button").nth(workers).press("Enter")
    assert opened.column(workers) == sorted(opened.column(workers), key=int)  # 10 comes after 2
    assert opened.order("workers") == "ascending"
    assert opened.order("requests/s") == "none"
    opened.page.locator("#trials th button").nth(opened.button("result")).press("Enter")
    assert opened.order("result") == "ascending"


def test_nothing_in_the_results_is_markup(opened: OpenPage) -> None:
    assert opened.page.title() == f"model {HOSTILE}: ts-handlers tune"
    assert f"failed: {HOSTILE}" in opened.column(opened.button("result"))
    assert opened.page.locator("img[src^=http]").count() == 0


def test_the_colours_follow_the_scheme(opened: OpenPage, request: pytest.FixtureRequest) -> None:
    before = opened.page.locator("#chart .bg").first.evaluate("element => getComputedStyle(element).fill")
    is_dark = "dark" in request.node.name
    opened.page.emulate_media(color_scheme="light" if is_dark else "dark")
    opened.page.wait_for_function(
        "before => getComputedStyle(document.querySelector('#chart .bg')).fill !== before", arg=before
    )
    assert opened.page.locator("#chart path.point").count() == 9
