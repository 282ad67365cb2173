"""A mapping from YAML or JSON -> a frozen dataclass. Strict: an unknown key, a wrong type or a small number is an error."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from ts_handlers.errors import ConfigError

T = TypeVar("T")

_LARGEST = 10**15
_LONGEST = 10**9
"""Seconds and milliseconds are fewer: Python's waiting takes no more than some 300 years."""


def setting(default: Any, *, minimum: float | None = None) -> Any:
    """Declare a field with a default and, for numbers, the smallest value it may have."""
    return dataclasses.field(default=default, metadata={"minimum": minimum})


def from_mapping(cls: type[T], values: Any, path: str) -> T:
    """Build dataclass `cls` from a mapping, field by field, naming `path` (a file's name ends with a colon) in every error.

    Raises:
        ConfigError: An unknown key, a wrong type or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} is {shown(values)}; it must be a mapping of settings")
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    for key in values:
        if key not in fields:
            raise ConfigError(f"{_join(path, key)} is no setting; {_nearest(str(key), fields)}")
    hints = typing.get_type_hints(cls)
    converted = {}
    for key, value in values.items():
        converted[key] = _convert(hints[key], value, _join(path, key))
        most = _LONGEST if key.endswith(("_s", "_ms")) else _LARGEST
        _check_range(converted[key], fields[key].metadata.get("minimum"), most, _join(path, key))
    return cls(**converted)


def _join(path: str, key: object) -> str:
    return f"{path} {key}" if path.endswith(":") else f"{path}.{key}"


def _nearest(key: str, known: Mapping[str, object]) -> str:
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    names = ", ".join(sorted(known))
    if matches:
        return f"did you mean {matches[0]}? Known: {names}"
    return f"known here: {names}" if known else "there are no settings here"


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            names = ", ".join(map(str, arguments))
            raise ConfigError(f"{path} is {shown(value)}; choose one of: {names}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{path} is {shown(value)}; it must be a list")
        return tuple(_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None:  # Mapping[str, str], or of sections that are named by the operator
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {shown(value)}; it must be a mapping")
        if dataclasses.is_dataclass(arguments[1]):
            return {str(key): _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
        return {str(key): str(item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast("type", hint), {} if value is None else value, path)
    return _convert_scalar(hint, value, path)


def _convert_union(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [argument for argument in arguments if argument is not type(None)]
    errors = []
    for choice in choices:
        try:
            return _convert(choice, value, path)
        except ConfigError as error:  # noqa: PERF203  # two choices at most
            errors.append(str(error))
    raise ConfigError(errors[0] if len(errors) == 1 else " or ".join(errors))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{path} is too large a number; it must be a finite one") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} is {shown(value)}; it must be of type {hint.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} is {shown(value)}; it must be a finite number")
    return value


def _check_range(value: Any, minimum: float | None, maximum: float, path: str) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float):
            continue
        if minimum is not None and number < minimum:
            raise ConfigError(f"{path} is {shown(value)}; it must be {minimum:g} or more")
        if number > maximum:
            raise ConfigError(f"{path} is {shown(value)}; it must be {maximum:g} or less")


def shown(value: Any) -> str:
    """Return a value and its type, as errors name them."""
    return f"{value!r} ({type(value).__name__})"
