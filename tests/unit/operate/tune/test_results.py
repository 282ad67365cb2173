from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.unit.operate.results_of import DEFAULT, LARGER, MORE, Blocks, measured, results_of
from ts_handlers.errors import OperatorError, RuntimeUnavailableError
from ts_handlers.operate.tune.report import report_page
from ts_handlers.operate.tune.results import Objective, Results, Setting
from ts_handlers.operate.tune.search import decide

HOSTILE = "</script><script>alert(1)</script>"


def some_results(path: Path) -> Results:
    blocks: Blocks = {
        DEFAULT: [measured(100), measured(102)],
        MORE: [measured(150, 60), measured(160, 40)],
        LARGER: [HOSTILE],
    }
    return results_of(blocks, Objective(slo_p99_ms=55), path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


def test_trials_are_read_back(path: Path) -> None:
    known = some_results(path)
    known.outcome = decide(known)
    known.write()
    again = results_of({}, path=path)
    again.read_trials()
    assert again.trials == known.trials
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["outcome"]["choice"]["workers"] == 2


def test_what_failed_in_a_search_that_did_not_end_is_forgotten(path: Path) -> None:
    some_results(path).write()
    again = results_of({}, path=path)
    again.read_trials()
    assert {trial.setting for trial in again.trials} == {DEFAULT, MORE}


def test_what_differs_is_named(path: Path) -> None:
    some_results(path).write()
    other = Results(path, {"model": "<echo> 1.0", "archive": "bb", "load": "16", "memory": "1"}, DEFAULT, Objective())
    with pytest.raises(
        OperatorError, match=r"of something else: archive \(aa there\), memory \(None .*CPU \(A & B .*--force"
    ):
        other.read_trials()


def test_a_format_of_another_version_is_said(path: Path) -> None:
    some_results(path).write()
    path.write_text(path.read_text(encoding="utf-8").replace("tune 2", "tune 1"), encoding="utf-8")
    with pytest.raises(OperatorError, match=r"of something else: format \(ts-handlers tune 1 there\)"):
        results_of({}, path=path).read_trials()


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"format": "another"}', '{"format": "ts-handlers tune 2", "trials": []}']
)
def test_a_file_of_something_else_is_an_error_that_says_what_to_do(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OperatorError, match=r"was not written by this version of tune .*--force"):
        results_of({}, path=path).read_trials()


def test_a_field_nobody_knows_is_an_error(path: Path) -> None:
    some_results(path).write()
    path.write_text(path.read_text(encoding="utf-8").replace('"workers"', '"gpus"'), encoding="utf-8")
    with pytest.raises(OperatorError, match="gpus"):
        results_of({}, path=path).read_trials()


def test_a_setting_is_said_in_words() -> None:
    assert Setting(1, 2, 8, 5).describe() == "1 worker x 2 threads, batch 8, delay 5 ms"
    assert Setting(2, 1, 1, 5).describe() == "2 workers x 1 thread, batch 1"


def test_the_page_has_every_trial_and_nothing_of_it_is_markup(path: Path) -> None:
    known = some_results(path)
    assert "<p>The search was not finished: 3 settings were tried so far.</p>" in report_page(known)
    known.outcome = decide(known)
    page = report_page(known)
    assert "<h1>&lt;echo&gt; 1.0, tuned</h1>" in page
    assert "<td>A &amp; B</td>" in page
    assert "failed: &lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert HOSTILE not in page
    assert len(re.findall("<tr><td>[12]</td>", page)) == len(known.trials)
    assert page.count(", misses the objective</td>") + page.count("<td>misses the objective</td>") == 1
    assert "p99 bound 55 ms" in page
    assert page.count("<p>") == len(known.outcome.sentences) + 1


def test_without_plotly_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(RuntimeUnavailableError, match=r"ts_handlers\[operate\]"):
        report_page(some_results(path))
