"""Java .properties files as `java.util.Properties` reads them: ISO-8859-1, escapes, continuation lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.errors import ConfigError

ENCODING = "iso-8859-1"

MAX_BYTES = 1_000_000
"""Largest file that is read; one of a thousand models has a fifth of it."""

_NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPES = {value: f"\\{name}" for name, value in _NAMED.items()} | {"\\": "\\\\"}
_BLANKS = " \t\f"
_MEANT = frozenset("tnrfu\\ =:#!")
"""What a backslash is written before on purpose."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value, and the comment that stands above it.

    Attributes:
        key: The property's name.
        value: Its value, unescaped.
        comment: Why it has this value; may have several lines; empty for none.
    """

    key: str
    value: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One property as a file has it.

    Attributes:
        key: The property's name.
        value: Its value, unescaped.
        raw: The value as it is written, continuation lines joined.
        separator: What stands between them: "=", ":", or "" for blanks.
        is_continued: Whether it goes on over more than one line.
    """

    key: str
    value: str
    raw: str
    separator: str
    is_continued: bool

    @property
    def swallowed(self) -> str:
        r"""The characters whose backslash is dropped although it stands for nothing: `\.` is read as a full stop."""
        escaped = re.findall(r"\\(.)", self.raw, re.DOTALL)
        return "".join(dict.fromkeys(char for char in escaped if char not in _MEANT))


def render(entries: Iterable[Entry], *, header: str = "") -> str:
    """Write entries in their order, each with its comment above it; the text is ASCII."""
    blocks = [_comment(header)] if header else []
    for entry in entries:
        line = f"{_escape(entry.key, extra=' =:#!')}={_escape_value(entry.value)}\n"
        blocks.append(_comment(entry.comment) + line if entry.comment else line)
    return "\n".join(blocks)


def read_text(path: Path) -> str:
    """Return the text of a .properties file.

    Raises:
        ConfigError: It cannot be read, or is far too large to be one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; give a config.properties") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path} has more than {MAX_BYTES} bytes, which no config.properties has; give the right file"
        )
    return content.decode(ENCODING)


def parse(text: str) -> dict[str, str]:
    r"""Read a .properties text; a key given twice has its last value.

    Raises:
        ConfigError: A `\u` escape is not followed by four hexadecimal digits.
    """
    return {line.key: line.value for line in parse_lines(text)}


def parse_lines(text: str) -> tuple[Line, ...]:
    r"""Read a .properties text line by line, what is overwritten later included.

    Raises:
        ConfigError: A `\u` escape is not followed by four hexadecimal digits.
    """
    return tuple(_split(line, is_continued=is_continued) for line, is_continued in _logical_lines(text))


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in _escape_unicode(text).split("\n"))


def _escape_value(value: str) -> str:
    escaped = _escape(value)
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def _escape(text: str, extra: str = "") -> str:
    escaped = "".join(f"\\{char}" if char in extra else _ESCAPES.get(char, char) for char in text)
    return _escape_unicode(escaped)


def _escape_unicode(text: str) -> str:
    r"""Write every character outside printable ASCII (and the newline) as UTF-16 code units, `\uXXXX`."""

    def units(match: re.Match[str]) -> str:
        code = match.group().encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{code[start : start + 4]}" for start in range(0, len(code), 4))

    return re.sub(r"[^\n -~]", units, text)


def _logical_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield lines without comments and blank ones, continuation lines joined, and whether there were any."""
    pending: list[str] = []
    is_continued = False
    for line in re.split(r"\r\n|\r|\n", text):
        stripped = line.lstrip(_BLANKS)
        if not is_continued and (not stripped or stripped[0] in "#!"):
            continue
        trailing = len(stripped) - len(stripped.rstrip("\\"))
        is_continued = trailing % 2 == 1
        pending.append(stripped[:-1] if is_continued else stripped)
        if not is_continued:
            yield "".join(pending), len(pending) > 1
            pending = []
    if any(pending):
        yield "".join(pending), len(pending) > 1


def _split(line: str, *, is_continued: bool) -> Line:
    """Divide a line at the first unescaped separator: `=`, `:` or blanks."""
    match = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*([=:]?)[ \t\f]*", line, re.DOTALL)
    if match is None:  # the pattern also matches nothing at all
        return Line(line, "", "", "", is_continued)
    key = _unescape(match.group(1), "a key")
    raw = line[match.end() :]
    return Line(key, _unescape(raw, f"the value of {key}"), raw, match.group(2), is_continued)


def _unescape(text: str, where: str) -> str:
    """Undo escapes; an error says where they are and quotes nothing, for some values are passwords."""

    def character(match: re.Match[str]) -> str:
        code, other = match.group(1), match.group(2)
        if code is not None:
            return chr(int(code, 16))
        if other == "u":
            raise ConfigError(
                f"a \\u escape needs four hexadecimal digits, in {where}; write \\\\u for a backslash and u"
            )
        return _NAMED.get(other, other)

    plain = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", character, text, flags=re.DOTALL)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
