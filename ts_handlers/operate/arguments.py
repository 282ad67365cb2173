"""From the words of a command line to what a command works with."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MAX_DIGITS = 20
"""Python refuses to read numbers of thousands of digits, with another error."""

T = TypeVar("T", bound="DataclassInstance")


def from_arguments(kind: type[T], args: argparse.Namespace, **others: Any) -> T:
    """Make a dataclass whose fields are named as the options are.

    Args:
        kind: The dataclass.
        args: The options.
        others: The fields that are no option, or one of another name or form.
    """
    options = {field.name: getattr(args, field.name) for field in fields(kind) if field.name not in others}
    return kind(**options, **others)


def option(
    default: Any,
    text: str,
    metavar: str | None = None,
    kind: Callable[[str], object] = str,
    *,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a field of a dataclass that is an option of the command line.

    Args:
        default: What it is where it is not given; False makes a switch of it. None: the text says it.
        text: What it is for.
        metavar: How its value is called.
        kind: Reads its value.
        choices: All values it may have.
    """
    if default is False:
        return field(default=default, metadata={"action": "store_true", "help": text})
    more = "" if default is None else " (default: %(default)s)"
    return field(
        default=default,
        metadata={"metavar": metavar, "type": kind, "choices": choices, "default": default, "help": f"{text}{more}"},
    )


def add_options(group: argparse._ArgumentGroup, kind: type[DataclassInstance]) -> None:
    """Declare the options that are fields of a dataclass."""
    for item in fields(kind):
        if item.metadata:
            group.add_argument(f"--{item.name.replace('_', '-')}", **item.metadata)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which running server is meant."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="its config.properties")
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        type=Path,
        help="the folder it was started with, where its tokens are; not needed without token authorization",
    )


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds; None: no upper one."""
    bounds = f"{least} or more" if most is None else f"{least} to {most}"

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
        if not is_number or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {bounds}")
        return int(text)

    return read


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """Return a reader of text that a pattern matches as a whole, and that is no `what` else."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
        return text

    return read
