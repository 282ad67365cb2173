from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.operate.tune.objective import Measurement, Objective, Verdict
from ts_handlers.operate.tune.report import chart, conclusion, latest, pareto_front, report_page
from ts_handlers.operate.tune.results import Outcome, Results, Subject, Trial
from ts_handlers.operate.tune.space import Setting

DEFAULT, OTHER, THIRD, BROKEN = (Setting(workers, 1, 8, 1) for workers in (2, 4, 3, 8))


def measured(rate: float, p99_ms: float) -> Measurement:
    return Measurement(rate, p99_ms / 4, p99_ms / 2, p99_ms, 100)


def results(objective: Objective | None = None) -> Results:
    subject = Subject("<echo> 1.0", "aa", "bb", {"rate": None, "concurrency": 16.0}, {"CPU": "A & B"})
    known = Results(Path("results.json"), subject, DEFAULT, objective or Objective())
    known.trials += [
        Trial(DEFAULT, 0, 5, 6, 12, measured(100, 50)),
        Trial(OTHER, 0, 5, 6, 12, measured(150, 60)),
        Trial(THIRD, 0, 5, 6, 12, measured(90, 80)),
        Trial(BROKEN, 0, 5, 0, 12, None, "</script><script>alert(1)</script>"),
    ]
    return known


def finished(objective: Objective | None = None) -> Results:
    known = results(objective)
    for setting, rate in ((OTHER, 160), (DEFAULT, 100), (OTHER, 140), (DEFAULT, 110)):
        known.trials.append(Trial(setting, None, 15, 6, 22, measured(rate, 40)))
    known.outcome = Outcome(OTHER, OTHER, Verdict(is_better=True, is_met=True, gain=1.43, reason="it is"), is_met=True)
    return known


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = [measured(100, 50), measured(150, 60), measured(90, 80), measured(150, 70), measured(80, 50)]
    assert pareto_front(points) == [(50, 100), (60, 150)]
    assert pareto_front([]) == []


def test_a_setting_counts_by_its_final_blocks_else_by_its_last_round() -> None:
    known = results()
    known.trials.append(Trial(OTHER, 1, 15, 6, 22, measured(170, 55)))
    assert latest(known)[OTHER].requests_per_second == 170
    assert BROKEN not in latest(known)
    assert latest(finished())[OTHER].requests_per_second == 150


def test_every_setting_is_one_point_of_the_chart() -> None:
    drawn = chart(finished())
    points = {trace["role"]: trace for trace in drawn["traces"]}
    assert {role: len(trace["x"]) for role, trace in points.items() if role != "front"} == {
        "tried": 1,
        "default": 1,
        "chosen": 1,
    }
    assert points["chosen"]["y"] == [150]
    assert drawn["x_type"] == "linear"
    assert drawn["slo_p99_ms"] is None


def test_the_default_is_one_point_where_it_is_chosen() -> None:
    known = results(Objective(slo_p99_ms=70))
    known.outcome = Outcome(DEFAULT, None, None, is_met=True)
    drawn = chart(known)
    assert [trace["name"] for trace in drawn["traces"]] == ["Pareto front", "tried", "default, chosen"]
    assert drawn["slo_p99_ms"] == 70


def test_latencies_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    known = results()
    known.trials.append(Trial(BROKEN, 0, 5, 6, 12, measured(5, 5000)))
    assert chart(known)["x_type"] == "log"


def test_the_conclusion_has_both_figures_and_the_gain() -> None:
    said = " ".join(conclusion(finished()))
    assert "Chosen: 4 workers x 1 thread, batch 8, delay 1 ms." in said
    assert "150.0 requests/s (160.0 and 140.0) with a p99 of 40.0 ms" in said
    assert "105.0 requests/s (100.0 and 110.0)" in said
    assert "the first has 1.43 times the requests per second: it is." in said
    assert "<dt>Against the default</dt><dd>1.43 times the requests per second</dd>" in report_page(finished())


def test_where_only_one_meets_the_bound_no_gain_is_named() -> None:
    known = finished(Objective(slo_p99_ms=45))
    verdict = Verdict(is_better=True, is_met=True, gain=None, reason="only the contender meets the objective")
    known.outcome = Outcome(OTHER, OTHER, verdict, is_met=True)
    said = " ".join(conclusion(known))
    assert "Measured in turn, twice each: only the contender meets the objective." in said
    assert "Against the default" not in report_page(known)


def test_a_comparison_with_too_few_blocks_says_how_many_there_were() -> None:
    known = results()
    known.trials += [
        Trial(OTHER, None, 15, 6, 22, measured(160, 40)),
        Trial(DEFAULT, None, 15, 6, 22, None, "the server ended"),
        Trial(OTHER, None, 15, 6, 22, measured(150, 40)),
        Trial(DEFAULT, None, 15, 6, 22, measured(110, 40)),
    ]
    known.outcome = Outcome(DEFAULT, OTHER, None, is_met=True)
    said = " ".join(conclusion(known))
    assert (
        "needs two measured blocks of each: 4 workers x 1 thread, batch 8, delay 1 ms had 2, the default of configure 1"
        in said
    )
    assert "No setting meets" not in said


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (None, "was not finished: 4 settings"),
        (Outcome(DEFAULT, None, None, is_met=True), "No other setting could be measured"),
        (Outcome(OTHER, OTHER, None, is_met=False), "No setting meets the objective, the most requests per second"),
        (Outcome(OTHER, OTHER, None, is_met=True), "The default of configure could not be measured"),
    ],
)
def test_the_conclusion_says_what_is_missing(outcome: Outcome | None, said: str) -> None:
    known = results()
    known.outcome = outcome
    assert said in " ".join(conclusion(known))


def test_the_page_has_every_trial_and_nothing_of_it_is_markup() -> None:
    known = finished(Objective(slo_p99_ms=45))
    page = report_page(known)
    before_scripts = page.split('<script type="application/json"')[0]
    assert "<script" not in before_scripts
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in before_scripts
    assert "<h1>&lt;echo&gt; 1.0, tuned</h1>" in page
    assert "A &amp; B" in page
    assert before_scripts.count("data-value=") == 13 * len(known.trials)
    assert before_scripts.count("<th scope=") == 13
    assert before_scripts.count("misses the objective</td>") == 3
    embedded = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page)
    assert embedded is not None
    assert json.loads(embedded[1]) == chart(known)
    assert not set(embedded[1]) & set("<>&")  # nothing in it can end the script


def test_an_unfinished_search_has_no_comparison() -> None:
    assert "The final comparison" not in report_page(results())


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(RuntimeUnavailableError, match=r"ts_handlers\[operate\]"):
        report_page(results())
