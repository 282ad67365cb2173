from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.configure.written import configured, values_of
from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.errors import ConfigError
from ts_handlers.operate.configure.options import Options
from ts_handlers.operate.configure.plan import Plan, make_plan
from ts_handlers.operate.torchserve.archives import Archive

SMALL, LARGE = 2**30, 2**36
"""Bytes of memory: a heap of 256 and of 1024 MiB."""


def archive(task: str | None = None, **limits: Any) -> Archive:
    settings = None if task is None else {"handler": {"task": task, "limits": limits}}
    return Archive(Path("m.mar"), "m", "1.0", settings)


def plan(*archives: Archive, memory_bytes: int = LARGE) -> Plan:
    return make_plan(archives, 2, Options(), memory_bytes=memory_bytes)


@pytest.mark.parametrize(
    ("task", "limits", "least", "most"),
    [
        (None, {}, DEFAULT_BODY_BYTES, DEFAULT_BODY_BYTES),
        ("text-classification", {}, DEFAULT_BODY_BYTES, DEFAULT_BODY_BYTES),
        (
            "text-classification",
            {"max_text_length": 2_000_000},
            24_000_000,
            24_000_000,
        ),  # a pair, six bytes a character
        ("text-classification", {"max_tokens": 10**6}, 76_800_000, 76_800_000),  # 128 of 100,000 characters
        ("text-classification", {"max_tokens": 100_000}, 9_600_000, 9_600_000),
        ("image-classification", {}, 4 / 3 * 20_000_000, 28_000_000),
        ("object-detection", {"max_image_bytes": 60_000_000}, 80_000_000, 83_000_000),
        ("image-segmentation", {"max_image_bytes": 1_000_000}, DEFAULT_BODY_BYTES, DEFAULT_BODY_BYTES),
    ],
)
def test_requests_are_as_large_as_the_model_takes(task: str, limits: dict[str, Any], least: float, most: float) -> None:
    values = values_of(plan(archive(), archive(task, **limits)))
    assert least <= int(values["max_request_size"]) <= most


def test_the_heap_holds_eight_requests_and_thirty_two_answers() -> None:
    decided = plan(archive("image-classification", max_image_bytes=10**9), memory_bytes=SMALL)
    values = values_of(decided)
    assert (int(values["max_request_size"]), int(values["max_response_size"])) == (2**28 // 8, 2**28 // 32)
    assert decided.models[0].largest_request > 10**9


def test_limits_that_cannot_be_read_are_named() -> None:
    with pytest.raises(ConfigError, match=r"m\.mar: .*handler\.limits\.max_image_bytes"):
        plan(archive("image-classification", max_image_bytes="many"))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("{}", "The largest that the limits of photo 1.0"),
        ("{max_image_bytes: 900000000}", "eight of this size fill the frontend's heap"),
        ("{max_image_bytes: 1000}", "TorchServe's own"),
    ],
)
def test_the_file_says_why(write_mar: Callable[..., Path], limits: str, expected: str) -> None:
    store = write_mar("photo", config=f"handler: {{task: image-classification, limits: {limits}}}\n").parent
    values = configured(store)
    assert int(values["max_request_size"]) >= DEFAULT_BODY_BYTES
    assert int(values["max_response_size"]) >= DEFAULT_BODY_BYTES
    assert expected in (store / "config.properties").read_text()
