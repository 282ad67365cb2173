"""The report of `tune` in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import OpenPage, open_chromium
from tests.unit.operate.results_of import DEFAULT, LARGER, MORE, Blocks, measured, results_of
from ts_handlers.operate.tune.report import report_page
from ts_handlers.operate.tune.results import Objective
from ts_handlers.operate.tune.search import decide

pytestmark = pytest.mark.e2e

HOSTILE = "</script><script>document.title = 'broken'</script><img src=http://127.0.0.1:9/x>"


def test_it_draws_a_point_for_each_trial_asks_for_nothing_and_no_result_is_markup(tmp_path: Path) -> None:
    blocks: Blocks = {
        DEFAULT: [measured(100, 80), measured(104, 90)],
        MORE: [measured(150, 120), measured(160, 110)],
        LARGER: [HOSTILE],
    }
    results = results_of(blocks, Objective(slo_p99_ms=150))
    results.measured_on = {**results.measured_on, "model": f"model {HOSTILE}", "CPU": HOSTILE}
    results.outcome = decide(results)
    path = tmp_path / "report.html"
    path.write_text(report_page(results), encoding="utf-8")
    with open_chromium() as chromium:
        opened = OpenPage(chromium.new_page(), path)
        points = opened.page.locator("#chart path.point")
        boxes = [points.nth(index).bounding_box() for index in range(points.count())]
        assert all(box is not None and box["width"] > 3 and box["height"] > 3 for box in boxes)
        assert len({(round(box["x"]), round(box["y"])) for box in boxes if box}) == 4
        assert opened.page.locator("#chart .annotation").text_content() == "p99 bound 150 ms"
        legend = opened.page.locator("#chart .legendtext").all_text_contents()
        assert legend == [f"{DEFAULT.describe()}, default", f"{MORE.describe()}, chosen"]
        assert opened.cells(2) == ["100.0", "150.0", "", "104.0", "160.0"]
        assert opened.cells(8)[2] == f"failed: {HOSTILE}"
        assert opened.page.title() == f"model {HOSTILE}: ts-handlers tune"
        assert opened.page.locator("img[src^=http]").count() == 0
        assert opened.said == []
        assert opened.requests == [path.as_uri()]
