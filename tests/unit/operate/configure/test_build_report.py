from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.build.report import BuildReport
from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.torchserve.archives import read_archives


def report(store: Path, file: str = "mini.build.json", **values: Any) -> Path:
    path = store / file
    content = {"name": "mini", "version": "1.0", "rss_mb": 310, "latency_ms": {"1x24": 3.9, "8x24": 22.0}} | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


def test_a_report_is_found_by_what_the_manifest_says(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    write_mar("other", "2.0")
    report(store, "renamed.build.json", weight=3)
    report(store, "old.build.json", version="0.9")

    (found,) = read_reports(store, read_archives(store)).items()
    assert found[0] == ("mini", "1.0")
    assert (found[1].weight, found[1].rss_mb, found[1].single_ms) == (3, 310, 3.9)


def test_what_a_build_writes_is_what_is_read(tmp_path: Path) -> None:
    written = BuildReport("mini", "1.0", 2.5, 310.0, {"1x24": 3.9}, {"precision": "int8", "versions": {"onnx": "1"}})
    written.write(tmp_path / "mini.build.json")

    assert BuildReport.read(tmp_path / "mini.build.json") == written
    assert json.loads((tmp_path / "mini.build.json").read_text())["precision"] == "int8"


@pytest.mark.parametrize(
    ("values", "rss_mb"), [({"rss_mb": ..., "latency_ms": ...}, None), ({"latency_ms": {"8x24": 22.0}}, 310)]
)
def test_what_is_not_in_it_has_a_default(
    write_mar: Callable[..., Path], values: dict[str, Any], rss_mb: float | None
) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, **values)

    (found,) = read_reports(store, read_archives(store)).values()
    assert (found.weight, found.rss_mb, found.single_ms) == (1, rss_mb, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0}, "weight is 0.* must be a number above 0"),
        ({"weight": -1}, "weight is -1"),
        ({"weight": "3"}, "weight is '3'"),
        ({"weight": True}, "weight is True"),
        ({"weight": float("inf")}, "a number that is infinite"),
        ({"weight": 10**9}, r"weight is 1e\+09; write a number up to 1,000,000"),
        ({"rss_mb": -5}, "rss_mb is -5"),
        ({"latency_ms": 3}, r"latency_ms is 3 \(int\), not a table"),
        ({"latency_ms": {"1x24": "fast"}}, "one sequence is 'fast'"),
        ({"name": 7}, "name is 7"),
        ({"version": ""}, "names no model and version"),
    ],
)
def test_nonsense_is_refused(write_mar: Callable[..., Path], values: dict[str, Any], message: str) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, **values)

    with pytest.raises(OperatorError, match=message):
        read_reports(store, read_archives(store))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "not an object")])
def test_a_broken_file_is_refused(write_mar: Callable[..., Path], text: str, message: str) -> None:
    store = write_mar("mini", "1.0").parent
    (store / "mini.build.json").write_text(text)

    with pytest.raises(OperatorError, match=message):
        read_reports(store, read_archives(store))


def test_one_that_cannot_be_read_is_refused(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    (store / "mini.build.json").mkdir()

    with pytest.raises(OperatorError, match="cannot read .*mini.build.json"):
        read_reports(store, read_archives(store))


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ({"mini-1.0": "2.0"}, r"is about mini version 2\.0, and mini-1\.0\.mar is mini version 1\.0"),
        ({"a": "1.0", "b": "1.0"}, r"a\.build\.json and .*b\.build\.json are both about mini version 1\.0"),
    ],
)
def test_reports_that_contradict_their_archive_or_one_another_are_refused(
    write_mar: Callable[..., Path], reports: dict[str, str], message: str
) -> None:
    store = write_mar("mini", "1.0").parent
    for name, version in reports.items():
        report(store, f"{name}.build.json", version=version)

    with pytest.raises(OperatorError, match=message):
        read_reports(store, read_archives(store))
