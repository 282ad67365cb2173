"""Java .properties files as `java.util.Properties` reads them: ISO-8859-1, escapes, continuation lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ts_handlers.errors import ConfigError

ENCODING = "iso-8859-1"

_NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPES = {value: f"\\{name}" for name, value in _NAMED.items()} | {"\\": "\\\\"}
_BLANKS = " \t\f"


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


def render(entries: Iterable[Entry], *, header: str = "") -> str:
    """Write entries in their order, each with its comment above it; the text is ASCII."""
    blocks = [_comment(header)] if header else []
    for entry in entries:
        line = f"{_escape(entry.key, extra=' =:#!')}={_escape_value(entry.value)}\n"
        blocks.append(_comment(entry.comment) + line if entry.comment else line)
    return "\n".join(blocks)


def parse(text: str) -> dict[str, str]:
    r"""Read a .properties text; a key given twice has its last value.

    Raises:
        ConfigError: A `\u` escape is not followed by four hexadecimal digits.
    """
    return dict(_split(line) for line in _logical_lines(text))


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


def _logical_lines(text: str) -> Iterator[str]:
    """Yield lines without comments and blank ones, continuation lines joined."""
    pending = ""
    is_continued = False
    for line in re.split(r"\r\n|\r|\n", text):
        stripped = line.lstrip(_BLANKS)
        if not is_continued and (not stripped or stripped[0] in "#!"):
            continue
        pending += stripped
        trailing = len(pending) - len(pending.rstrip("\\"))
        is_continued = trailing % 2 == 1
        if is_continued:
            pending = pending[:-1]
            continue
        yield pending
        pending = ""
    if pending:
        yield pending


def _split(line: str) -> tuple[str, str]:
    """Divide a line at the first unescaped separator: `=`, `:` or blanks."""
    match = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*", line, re.DOTALL)
    if match is None:  # the pattern also matches nothing at all
        return line, ""
    return _unescape(match.group(1)), _unescape(line[match.end() :])


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code, other = match.group(1), match.group(2)
        if code is not None:
            return chr(int(code, 16))
        if other == "u":
            raise ConfigError(
                f"a \\u escape needs four hexadecimal digits, in {text!r}; write \\\\u for a backslash and u"
            )
        return _NAMED.get(other, other)

    plain = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", character, text, flags=re.DOTALL)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
