"""JSON and YAML of files that somebody else wrote: whatever is in them, it is read, or it is a ValueError of one line."""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

MAX_CHARACTERS = 20_000_000
"""Longest text that is read; a tokenizer's or a model's largest files have a tenth of it."""

MAX_VALUES = 1_000_000
"""Most values in it, those counted again that YAML's aliases repeat: a few lines of them can stand for billions."""

_LARGEST = 10**100
"""Whole numbers are below it: transformers writes 10^30 for no limit, and past 10^308 a number has no floating point."""


def parse_json(text: str | bytes, *, any_number: bool = False) -> Any:
    """Read JSON.

    Args:
        text: The text.
        any_number: Whether numbers may be of any size, infinite ones included.

    Raises:
        ValueError: It is none, nested too deeply, too large, or has a number that no setting can have.
    """
    _check_size(text)
    try:
        return _checked(json.loads(text), any_number=any_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(text: str | bytes) -> Any:
    """Read YAML, without tags that make objects.

    Raises:
        ValueError: As for JSON.
    """
    _check_size(text)
    try:
        return _checked(yaml.safe_load(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_size(text: str | bytes) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; at most {MAX_CHARACTERS} are read")


def _checked(value: Any, *, any_number: bool = False) -> Any:
    """Return a parsed value if all that is in it can be used: counted, as often as it is used, and of usable numbers."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise ValueError(
                f"it has more than {MAX_VALUES} values, those of aliases counted as often as they are used"
            )
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set)):
            waiting += item
        elif any_number:
            continue
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("it has a number that is infinite or none (or too large to be written as one)")
        elif isinstance(item, int) and abs(item) >= _LARGEST:
            raise ValueError("it has a whole number of more than 100 digits")
    return value
