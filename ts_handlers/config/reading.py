"""JSON and YAML of files that somebody else wrote: whatever is in them, it is read, or it is a ValueError of one line."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 20_000_000
"""Largest file that is read as JSON; a tokenizer's or a model's largest settings have a tenth of it."""

MAX_YAML_BYTES = 500_000
"""Largest text that is read as YAML: PyYAML takes six seconds for the worst; a model-config.yaml has a hundredth of it."""

MAX_VALUES = 1_000_000
"""Most values in it, those counted again that YAML's aliases repeat: a few lines of them can stand for billions."""

MAX_DEPTH = 100
"""Most lists and tables within each other."""

_MAX_DIGITS = 100
"""Longest number of a YAML text: 1:59:59:... is one, too, and takes a time that grows with the square of its length."""

_LARGEST = 10**100
"""Whole numbers are below it: transformers writes 10^30 for no limit, and past 10^308 a number has no floating point."""


def load_json(file: Path, *, any_number: bool = False) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        any_number: As for a text; a model's config.json may have some.

    Raises:
        OSError: It cannot be opened.
        ValueError: As for a text.
    """
    return parse_json(_read(file, MAX_BYTES), any_number=any_number)


def load_yaml(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        OSError: It cannot be opened.
        ValueError: As for a text.
    """
    return parse_yaml(_read(file, MAX_YAML_BYTES))


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of an archive; one that is unpacked to far more than it should be is not read to its end.

    Raises:
        KeyError: There is none.
        ValueError: It is too large.
    """
    with archive.open(name) as member:
        content = member.read(MAX_BYTES + 1)
    _check_size(content, MAX_BYTES)
    return content


def parse_json(text: str | bytes, *, any_number: bool = False) -> Any:
    """Read JSON.

    Args:
        text: The text.
        any_number: Whether numbers may be infinite, or none.

    Raises:
        ValueError: It is none, nested too deeply, too large, or has a number or a text that no setting can have.
    """
    _check_size(text, MAX_BYTES)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    _check_extent(value, _values_in)
    _check_leaves(value, any_number=any_number)
    return value


def parse_yaml(text: str | bytes) -> Any:
    """Read YAML, without tags that make objects.

    Raises:
        ValueError: As for JSON.
    """
    _check_size(text, MAX_YAML_BYTES)
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_extent(node, _nodes_in)
        value = loader.construct_document(node)
    except RecursionError as error:
        raise _too_deep() from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (LookupError, AttributeError, TypeError, OverflowError) as error:  # so PyYAML ends at `!!bool x`
        raise ValueError("it has a value that is none of its type") from error
    finally:
        if loader is not None:
            loader.dispose()
    _check_leaves(value)
    return value


def _read(file: Path, limit: int) -> str:
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    _check_size(content, limit)
    return content.decode("utf-8")


def _check_size(text: str | bytes, limit: int) -> None:
    if len(text) > limit:
        raise ValueError(f"it is longer than {limit} characters, which are read at most")


def _too_deep() -> ValueError:
    return ValueError(f"it is nested too deeply; at most {MAX_DEPTH} lists and tables within each other are read")


def _check_extent(root: Any, parts: Callable[[Any], Iterable[Any]]) -> None:
    """Check how much a tree holds and how deep it is, before anything is made of it."""
    waiting, seen = [(root, 0)], 1
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        inner = tuple(parts(item))
        seen += len(inner)
        if seen > MAX_VALUES:
            raise ValueError(
                f"it has more than {MAX_VALUES} values, those of aliases counted as often as they are used"
            )
        waiting += [(part, depth + 1) for part in inner]


def _values_in(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    return value if isinstance(value, (list, tuple, set)) else ()


def _nodes_in(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > _MAX_DIGITS and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            raise ValueError(f"it has a number of more than {_MAX_DIGITS} digits")
        return ()
    return (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))


def _check_leaves(value: Any, *, any_number: bool = False) -> None:
    """Check that every number is one that a setting can have, and that every text can be written."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        waiting += _values_in(item)
        if isinstance(item, str):
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise ValueError("it has half of a character (a lone surrogate) in a text")
        elif isinstance(item, float) and not (any_number or math.isfinite(item)):
            raise ValueError("it has a number that is infinite or none (or too large to be written as one)")
        elif isinstance(item, int) and abs(item) >= _LARGEST:
            raise ValueError("it has a whole number of more than 100 digits")
