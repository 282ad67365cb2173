from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from ts_handlers.operate.arguments import from_arguments, whole


@dataclass(frozen=True)
class Trip:
    """Where to, and how."""

    place: str
    days: int
    is_far: bool = False


def test_a_dataclass_takes_the_options_of_its_fields_names() -> None:
    args = argparse.Namespace(place="Oslo", days=3, far=True, other="unused")
    assert from_arguments(Trip, args, is_far=args.far) == Trip("Oslo", 3, is_far=True)


def test_a_field_that_nothing_gives_is_a_mistake_even_with_a_default() -> None:
    with pytest.raises(AttributeError, match="is_far"):
        from_arguments(Trip, argparse.Namespace(place="Oslo", days=3))


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("08", 8), ("8", 8)])
def test_whole_numbers_within_bounds(text: str, number: int) -> None:
    assert whole(1, 8)(text) == number


@pytest.mark.parametrize("text", ["0", "9", "-1", "1.0", "1e0", "", " 1", "\u0663", "one"])
def test_other_numbers_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number, 1 to 8"):
        whole(1, 8)(text)


def test_without_an_upper_bound() -> None:
    assert whole(1)("9" * 20) == 10**20 - 1
    for text in ("0", "9" * 5000):  # of more digits than Python reads
        with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number, 1 or more"):
            whole(1)(text)
