"""JSON as TorchServe reads it in `models` and `model_snapshot`: by Gson, which is lenient.

Single quotes and bare words are texts, `=`, `=>` and `;` are separators, and there may be comments. So what is no JSON may
well be read, and not as it was meant: in {“m”: 1} the curly quotes are part of the name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container
from typing import Any

from ts_handlers.config.reading import MAX_DEPTH

_BLANK = re.compile(r"(?:[ \n\r\t]|/\*.*?\*/|(?://|#)[^\n\r]*)*", re.DOTALL)
_BARE = re.compile(r"[^{}\[\]:, \t\f\r\n/\\;#=]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TEXT = {quote: re.compile(rf"((?:[^\\{quote}]|\\.)*){quote}", re.DOTALL) for quote in "\"'"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"} | {char: char for char in "\n'\"\\/"}
_WORDS = {"true": True, "false": False, "null": None}
_MAX_DIGITS = 100


def parse(text: str, unique: Container[int] = ()) -> Any:
    """Read a text as Gson's `fromJson` does.

    Args:
        text: The text; None stands for an empty one.
        unique: Depths of the objects that become Java maps, in which a name may be given once; in others the last counts.

    Raises:
        ValueError: Gson cannot read it: what was expected, and where.
    """
    text = text.removeprefix("\ufeff")
    reader = _Reader(text, unique)
    if not reader.peek():
        return None
    value = reader.value(0)
    if text[reader.position :].strip(" \n\r\t"):  # comments are not allowed any more
        raise reader.error("the end")
    return value


def as_int(value: object) -> int:
    """Read a value as Gson's `getAsInt` does: "8" is 8, 4.5 is 4, and of larger numbers the low 32 bits count.

    Raises:
        ValueError: It throws, and TorchServe ends.
    """
    if isinstance(value, list):
        return as_int(value[0]) if len(value) == 1 else 0  # TorchServe catches this one
    if isinstance(value, float):  # BigDecimal.intValue: the low 32 bits, which are 0 of numbers like 1e400
        value = int(value) if math.isfinite(value) else 0
    if isinstance(value, int) and not isinstance(value, bool):
        return (value + 2**31) % 2**32 - 2**31
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value) and -(2**31) <= int(value) < 2**31:
        return int(value)
    raise ValueError(f"{value!r} is no whole number")


class _Reader:
    def __init__(self, text: str, unique: Container[int]) -> None:
        self._text = text
        self._unique = unique
        self.position = 0

    def error(self, expected: str) -> ValueError:
        """Say what was expected, and show what is there."""
        there = self._text[self.position : self.position + 20]
        found = f"found {there!r}" if there else "it ends"
        return ValueError(f"character {self.position + 1} should be {expected}, and {found}")

    def peek(self) -> str:
        """Go on to what is no blank and no comment; return its first character, "" at the end."""
        match = _BLANK.match(self._text, self.position)
        self.position = match.end() if match else self.position
        return self._text[self.position : self.position + 1]

    def value(self, depth: int) -> Any:
        """Read a value."""
        char = self.peek()
        if depth > MAX_DEPTH:
            raise ValueError(
                f"it is nested too deeply; at most {MAX_DEPTH} lists and tables within each other are read"
            )
        if char == "{":
            return self._object(depth)
        if char == "[":
            return self._array(depth)
        if char in _TEXT:
            return self._quoted()
        word = self._bare("a value")
        if word.lower() in _WORDS:
            return _WORDS[word.lower()]
        number = _NUMBER.fullmatch(word) if len(word) <= _MAX_DIGITS else None
        if number is None:
            return word
        return float(word) if number[1] or number[2] else int(word)

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.position += 1
        if self.peek() == "}":
            self.position += 1
            return found
        while True:
            name = self._quoted() if self.peek() in _TEXT else self._bare("a name")
            if name in found and depth in self._unique:
                raise ValueError(f"{name!r} is given twice")
            self._skip(":=", "':'")
            if self._text[self.position - 1] == "=" and self._text.startswith(">", self.position):
                self.position += 1
            found[name] = self.value(depth + 1)
            if self._skip(",;}", "',' or '}'") == "}":
                return found

    def _array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.position += 1
        if self.peek() == "]":
            self.position += 1
            return found
        while True:
            found.append(None if self.peek() in {",", ";", "]"} else self.value(depth + 1))
            if self._skip(",;]", "',' or ']'") == "]":
                return found

    def _skip(self, chars: str, expected: str) -> str:
        char = self.peek()
        if not char or char not in chars:
            raise self.error(expected)
        self.position += 1
        return char

    def _bare(self, expected: str) -> str:
        match = _BARE.match(self._text, self.position)
        if match is None:
            raise self.error(expected)
        self.position = match.end()
        return match[0]

    def _quoted(self) -> str:
        match = _TEXT[self._text[self.position]].match(self._text, self.position + 1)
        if match is None:
            raise self.error("a text that ends")
        try:
            text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPES[found[2]], match[1])
        except KeyError as error:
            raise self.error(f"an escape of JSON instead of \\{error.args[0]}") from error
        self.position = match.end()
        return text
