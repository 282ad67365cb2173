"""The text of a config.properties: what Java and `torchserve` read from it, and where that is not what was meant.

What is said of a property here is said of it once: the other checks take the value that was meant, or leave it out.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ts_handlers.operate.check.finding import Finding, Rules, at_most, found, judge
from ts_handlers.operate.torchserve.config import unset_variables
from ts_handlers.operate.torchserve.keys import KNOWN, LAUNCHER_KEYS
from ts_handlers.operate.torchserve.models import MODEL_KEYS
from ts_handlers.operate.torchserve.properties import ENCODING, Line, parse_lines

_NEAR = 0.8
_MAX_COMPARED = 300
_BOM = "\ufeff".encode().decode(ENCODING)
_NAME = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_QUOTES = ("'''", '"""', "/*", "*/", "<!--", "-->")
"""What surrounds comments elsewhere."""

_CURLY = re.compile("[\u201c-\u201f\u2018-\u201b\u00ab\u00bb]")
_COMMENT = re.compile(r"\s+(#|//|;|--)(\s.*)?$|\s+#.*$", re.DOTALL)
_FOREIGN_VARIABLE = re.compile(r"\$\{\w+\}|\$\$.\$\$|(?<!\$)\$[A-Za-z_]\w+(?!\w*\$)|^~/")
_SEVERAL_LINES = (
    "its value goes over several lines",
    "for Java it ends with its first line, and the next ones are keys; write it on one line, or end each but the last one "
    "with a backslash and nothing behind it",
)
_NO_UTF8 = (
    "it is not UTF-8",
    "`torchserve` reads the file as UTF-8 to find model_store, and ends; save it as UTF-8, or write \\uXXXX",
)
_MODEL_STORE = re.compile(r"(?:^|[\r\n])[^\S\r\n]*model_store[^\S\r\n]*=[^\S\r\n]*(\S[^\r\n]*)")
"""How ts/model_server.py reads it: line by line, without escapes."""

_BLANKS_COUNT = ("bool", "int", "long", "port", "address")
_BLANKS_COUNT_FOR = [
    "load_models",
    "metrics_config",
    "private_key_file",
    "certificate_file",
    "keystore",
    "service_envelope",
]


@dataclass(frozen=True, slots=True)
class Text:
    """What the text of a file says.

    Attributes:
        lines: Its properties, without what is none.
        values: The value of each, the last one, as it was meant.
        options: What `torchserve` reads by itself and gives to Java as an option, which goes before the file.
        unclear: Keys whose value nobody can tell here.
        findings: What is wrong with the text.
        is_text: Whether it can be read at all.
    """

    lines: tuple[Line, ...]
    values: Mapping[str, str]
    options: Mapping[str, str]
    unclear: frozenset[str]
    findings: tuple[Finding, ...]
    is_text: bool = True


def parse_text(text: str, environ: Mapping[str, str]) -> Text:
    """Read a text as Java and `torchserve` do.

    Raises:
        ConfigError: It is no .properties text.
    """
    if "\0" in text:
        why = "TorchServe knows nothing of what is in it: a zero byte is a part of a key; save it as UTF-8"
        return Text(
            (), {}, {}, frozenset(), (found("problem: the file", "it is UTF-16, or no text", why),), is_text=False
        )
    lines = list(parse_lines(text.removeprefix(_BOM)))
    values: dict[str, str] = {}
    marked = list(_byte_order_mark(text, lines))
    statements = _statements(lines)
    joined = [found(f"problem: {one[0].key}", *_SEVERAL_LINES) for one in statements if len(one) > 1]
    lines = [one[0] for one in statements if len(one) == 1]
    unclear = {one.key for one in (*marked, *joined)} & set(KNOWN)
    prose = list(_no_properties(lines))
    lines = [line for line in lines if not _is_prose(line)]
    faults: list[Finding] = []
    for line in lines:
        meant, fault = _meant(line)
        values[line.key] = line.value if meant is None else meant
        if fault:
            faults.append(found(f"problem: {line.key}", _shown(line, _quoted(line.value)), fault))
        unclear = unclear | {line.key} if meant is None else unclear - {line.key}
    java = [line for line in lines if line.key not in LAUNCHER_KEYS]
    unset = {line.key: names for line in java if (names := unset_variables(line.value, environ))}
    counts = Counter(line.key for line in lines)
    odd = (one for line in lines for one in judge(_LINE_RULES, line, value=_shown(line, line.value)))
    utf8 = _utf8(text)
    tables = (marked, joined, prose, _keys(counts), odd, faults, _unset(unset))
    store = next((line.value for line in reversed(lines) if line.key == "model_store"), None)
    encoding = [found("problem: the file", *_NO_UTF8)] if utf8 is None else []
    named = _MODEL_STORE.findall(utf8 or text)[-1:]
    return Text(
        lines=tuple(lines),
        values=values,
        options={"model_store": named[0].rstrip()} if named and store == values.get("model_store") else {},
        unclear=frozenset(unclear | set(unset)),
        findings=tuple(chain(*(at_most(iter(table)) for table in tables), encoding)),
    )


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that was probably meant; None where none is near, or where it is too long to be compared."""
    if len(key) > _MAX_COMPARED:
        return None
    by_plain = {_plain(name): name for name in known}
    near = difflib.get_close_matches(_plain(key), list(by_plain), n=1, cutoff=_NEAR)
    return by_plain[near[0]] if near else None


def _plain(key: str) -> str:
    """Return a key without what people vary: case, separators, and the TS_ of the environment."""
    return re.sub(r"[^a-z0-9]", "", key.lower().removeprefix("ts_"))


def _utf8(text: str) -> str | None:
    try:
        return text.encode(ENCODING).decode()
    except UnicodeError:
        return None


def _byte_order_mark(text: str, lines: list[Line]) -> Iterator[Finding]:
    """Say what a byte order mark does, and take away the property it spoils."""
    if text.startswith(_BOM) and text.removeprefix(_BOM).lstrip()[:1] not in {"#", "!", ""}:
        why = "Java takes it for a part of the first key, so that this is not set, and the default holds"
        about = f"problem: {lines.pop(0).key}"
        yield found(about, "the file begins with a byte order mark", f"{why}; save it as UTF-8 without one (BOM)")


def _statements(lines: Iterable[Line]) -> list[list[Line]]:
    """Put each line together with the ones after it that were meant to be its value, where Java has ended it."""
    found: list[list[Line]] = []
    for line in lines:
        if found and line.key not in KNOWN and _is_open(found[-1]):
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _is_open(lines: Sequence[Line]) -> bool:
    """Whether the value of the first line cannot be meant to end with the last one."""
    first, last, known = lines[0], lines[-1], KNOWN.get(lines[0].key)
    if known is None or known.kind != "json":
        return known is not None and (last.raw or last.key).rstrip().endswith(",")
    return len(lines) > 1 or not first.value.strip() or first.value.count("{") > first.value.count("}")


def _is_prose(line: Line) -> bool:
    """Whether a line is no property at all."""
    if line.key in KNOWN:
        return False
    is_text = line.separator != "=" and (" " in line.value or (not line.separator and not line.value))
    return is_text or not _NAME.fullmatch(line.key)


def _no_properties(lines: Sequence[Line]) -> Iterator[Finding]:
    prose = [line for line in lines if _is_prose(line)]
    is_quoted, held = False, []
    for line in lines:
        held += [line.key] if is_quoted and line.key in KNOWN else []
        is_quoted ^= line.key not in KNOWN and line.key.startswith(_QUOTES)
    if prose:
        shown = ", ".join(f"{line.key}{line.separator or ' '}{line.value}".strip()[:40] for line in prose[:3])
        text = "only # and ! at its beginning make a line a comment, and quotes do not"
        text += f", so that {', '.join(dict.fromkeys(held))} between them holds" if held else ""
        seen = f"{len(prose)} lines that are no properties: {shown}" if len(prose) > 1 else "a line that is no property"
        yield found(f"{'problem' if held else 'warning'}: {prose[0].key[:40]}", seen, f"{text}; begin it with #")


def _keys(counts: Mapping[str, int]) -> Iterator[Finding]:
    for key, count in counts.items():
        if count > 1:
            yield found(f"warning: {key}", f"{count} times", "only its last line counts; keep one")
        if key in KNOWN:
            continue
        if near := nearest(key, KNOWN):
            text = f"it is ignored, and the default holds; write {near}"
            yield found(f"problem: {key}", "no key of TorchServe's", text)
        else:
            of_model = nearest(key, MODEL_KEYS)
            remedy = f"set {of_model} for each model, in models=" if of_model else "remove it"
            yield found(f"warning: {key}", "no key of TorchServe 0.12", f"it is ignored; {remedy}")


_LINE_RULES: Rules[Line] = {
    "warning: {0.key}: Java drops a single backslash: this is read as {value}; write each backslash twice": lambda line: (
        bool(line.swallowed) and _shown(line, line.raw)
    ),
    "warning: {0.key}: the backslash at the end of its line makes the next line part of it; remove it, if that is a "
    "property": lambda line: (
        line.is_continued and re.search(r"\b[a-z_]{5,}=", line.value) is not None and _shown(line, line.value)
    ),
    "warning: {0.key}: `torchserve` itself reads this line too, and knows neither ':', blanks, escapes nor continuation "
    "lines; write {0.key}=VALUE on one line, without backslashes": lambda line: (
        line.key in LAUNCHER_KEYS and (line.separator != "=" or line.is_continued or "\\" in line.raw) and line.raw
    ),
}


def _quoted(value: str) -> str:
    """Return a value as an editor shows it, in quotes where its ends count."""
    text = _utf8(value) or value
    return repr(text) if text != text.strip() or text[:1] in "\"'`" else text


def _shown(line: Line, text: str) -> str:
    return "a password, not shown here" if "pass" in line.key.lower() else text


def _meant(line: Line) -> tuple[str | None, str]:
    """Return the value that was probably meant, None where nobody can tell, and what is wrong with the one there is."""
    known, value = KNOWN.get(line.key), line.value
    if known is None or line.key == "keystore_pass":
        is_read = known is None or value.isascii()
        return value, "" if is_read else "Java reads the file as ISO-8859-1; write \\uXXXX for other letters"
    is_plain = known.kind not in ("pattern", "json")
    decoded = value if value.isascii() or "\\u" in line.raw else _utf8(value) or value
    if decoded != value and line.key not in LAUNCHER_KEYS:
        if known.kind == "json" and _CURLY.search(decoded):
            return None, "curly quotes do not quote, they belong to the names; write straight ones"
        return decoded, f"Java reads the file as ISO-8859-1, so this is {value}; write \\uXXXX for such letters"
    if is_plain and _FOREIGN_VARIABLE.search(value):
        return None, "only $$NAME$$ is expanded, and this stays as it is; write $$NAME$$, or the value"
    if line.key in LAUNCHER_KEYS and unset_variables(value, {}):
        why = "`torchserve` itself reads this line, and expands no variable"
        return None, f"{why}; write the value, or give it as an option of torchserve, such as --model-store"
    comment = _COMMENT.search(value) if known.kind != "text" or "#" in value else None
    comment = comment or (re.search("#", value) if known.kind in _BLANKS_COUNT else None)
    is_kept = known.kind in _BLANKS_COUNT or line.key in _BLANKS_COUNT_FOR
    meant, why = value, ""
    if comment and line.key != "vmargs":
        meant, why = value[: comment.start()], "Java knows no comment at a line's end; write {} and nothing behind it"
    elif is_plain and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        meant, why = value[1:-1], "the quotes belong to the value; write {}"
    elif value != value.rstrip() and is_kept:
        meant, why = value.rstrip(), "Java keeps the blanks; write {} and nothing behind it"
    return meant, why.format(meant)


def _unset(unset: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    names = list(dict.fromkeys(name for one in unset.values() for name in one))
    if names:
        yield found(
            f"problem: {', '.join(unset)}",
            ", ".join(f"$${name}$$" for name in names),
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not set here, and TorchServe does not start with "
            "a variable it cannot expand; set them where the server starts (and here, to have the rest checked)",
        )
