from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    file = report(store, "renamed.build.json", weight=3)
    report(store, "old.build.json", version="0.9")

    (found,) = read_reports(store, read_archives(store)).items()
    assert found[0] == ("mini", "1.0")
    assert (found[1].file, found[1].weight, found[1].rss_mb, found[1].latency_ms) == (file, 3, 310, 3.9)


def test_what_is_not_in_it_has_a_default(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, rss_mb=..., latency_ms=...)

    (found,) = read_reports(store, read_archives(store)).values()
    assert (found.weight, found.rss_mb, found.latency_ms) == (1, None, None)


def test_a_table_without_single_calls_says_nothing(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, latency_ms={"8x24": 22.0})

    (found,) = read_reports(store, read_archives(store)).values()
    assert found.latency_ms is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0}, "weight is 0; write a number above 0"),
        ({"weight": -1}, "weight is -1"),
        ({"weight": "3"}, "weight is '3'"),
        ({"weight": True}, "weight is True"),
        ({"weight": float("inf")}, "a number that is infinite"),
        ({"weight": 10**9}, r"weight is 1e\+09; write a number up to 1,000,000"),
        ({"rss_mb": -5}, "rss_mb is -5"),
        ({"latency_ms": 3}, "latency_ms is 3, not a table"),
        ({"latency_ms": {"1x24": "fast"}}, "1x24 is 'fast'"),
        ({"name": 7}, "name is 7, not a text"),
        ({"version": ""}, "version is '', not a text"),
    ],
)
def test_nonsense_is_refused(write_mar: Callable[..., Path], values: dict[str, Any], message: str) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, **values)

    with pytest.raises(OperatorError, match=message):
        read_reports(store, read_archives(store))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "holds list, not an object")])
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


def test_one_of_another_build_beside_an_archive_is_refused(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, "mini-1.0.build.json", version="2.0")

    with pytest.raises(OperatorError, match=r"is about mini version 2\.0, and mini-1\.0\.mar is mini version 1\.0"):
        read_reports(store, read_archives(store))


def test_two_of_the_same_model_are_refused(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini", "1.0").parent
    report(store, "a.build.json")
    report(store, "b.build.json")

    with pytest.raises(OperatorError, match=r"a\.build\.json and .*b\.build\.json are both about mini version 1\.0"):
        read_reports(store, read_archives(store))
