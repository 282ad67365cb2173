from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.tune.objective import Measurement, Objective, Verdict
from ts_handlers.operate.tune.results import Outcome, Results, Subject, Trial, read_results
from ts_handlers.operate.tune.space import Setting

DEFAULT, OTHER = Setting(2, 1, 8, 1), Setting(4, 1, 8, 1)
SUBJECT = Subject("echo 1.0", "aa", "bb", {"rate": None, "concurrency": 16.0}, {"CPU": "one", "memory": "1 GiB"})


def some_results(folder: Path) -> Results:
    results = Results(folder / "results.json", SUBJECT, DEFAULT, Objective(slo_p99_ms=100.0))
    results.add(Trial(DEFAULT, 0, 5.0, 8.5, 15.0, Measurement(10.0, 1.0, 2.0, 3.0, 50, {"503": 1})))
    results.add(Trial(OTHER, None, 5.0, 0.0, 3.0, None, "it did not start"))
    return results


def test_every_trial_is_in_the_file_at_once(tmp_path: Path) -> None:
    results = some_results(tmp_path)
    assert read_results(results.path) == results
    assert results.num_settings == 2
    assert [trial.setting for trial in results.final] == [OTHER]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "outcome",
    [Outcome(OTHER, OTHER, Verdict(True, True, 1.2, "why"), True), Outcome(DEFAULT, None, None, False)],
)
def test_the_outcome_is_read_back(tmp_path: Path, outcome: Outcome) -> None:
    results = some_results(tmp_path)
    results.outcome = outcome
    results.write()
    assert read_results(results.path).outcome == outcome


def test_what_differs_is_named() -> None:
    assert SUBJECT.differences(SUBJECT) == []
    other = replace(SUBJECT, archive_sha256="cc", payloads_sha256="dd", load={"rate": 5.0, "concurrency": 16.0})
    assert SUBJECT.differences(other) == ["the archive", "the payloads", "rate (5.0 there)"]
    assert SUBJECT.differences(replace(SUBJECT, machine={"CPU": "two"})) == ["CPU (two there)", "memory (None there)"]


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", '{"format": "another"}', '{"format": "ts-handlers tune 1", "trials": []}'],
)
def test_a_file_of_something_else_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OperatorError, match=r"was not written by this version of tune .*--force"):
        read_results(path)


def test_a_field_nobody_knows_is_an_error(tmp_path: Path) -> None:
    path = some_results(tmp_path).path
    content = json.loads(path.read_text(encoding="utf-8"))
    content["default"]["gpus"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(OperatorError, match="gpus"):
        read_results(path)
