"""From the words of a command line to what a command works with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
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
