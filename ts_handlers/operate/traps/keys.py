"""Keys and the text of their values: what Java reads from a line, and from the environment instead of it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ts_handlers.operate.torchserve.config import java_int, overrides, unset_variables
from ts_handlers.operate.torchserve.keys import KNOWN, LAUNCHER_KEYS, Kind
from ts_handlers.operate.torchserve.models import MODEL_KEYS
from ts_handlers.operate.torchserve.properties import Line
from ts_handlers.operate.traps.finding import Finding, at_most
from ts_handlers.operate.traps.subject import Subject, compiled

_NEAR = 0.8
_MAX_COMPARED = 300
_METRICS_MODES = ("log", "prometheus", "legacy")
_LONG = re.compile(r"[+-]?[0-9]{1,19}")
_AT_LEAST_ONE = ("job_queue_size", "max_request_size", "max_response_size", "default_response_timeout")
"""Numbers TorchServe cannot work with below 1."""


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Check how the file is read, key by key."""
    counts = Counter(line.key for line in subject.lines)
    yield from at_most(_repeated(counts), "keys", "that are repeated")
    yield from at_most((_unknown(key) for key in counts if key not in KNOWN), "keys", "that are none of TorchServe's")
    yield from at_most(_text(subject), "keys", "lines that are read otherwise than written")
    yield from at_most(_unset(subject), "keys", "variables that are not set")
    yield from _environment(subject)
    for key, value in subject.values.items():
        known = KNOWN.get(key)
        if known is not None:
            yield from _value(key, value, known.kind)
    mode = "".join(subject.values.get("metrics_mode", "log").split()).lower()
    if mode not in _METRICS_MODES:
        yield Finding(
            "problem",
            "metrics_mode",
            repr(mode),
            "TorchServe knows no such mode and goes on with log",
            "write prometheus",
        )
    if "model_snapshot" in subject.values:
        ignored = [key for key in ("load_models", "models") if key in subject.values]
        yield Finding(
            "problem" if ignored else "warning",
            "model_snapshot",
            f"a snapshot, beside {' and '.join(ignored)}" if ignored else "a snapshot",
            "its models, workers and batches hold, and neither load_models nor any model-config.yaml; they are not checked",
            "remove the line, and start TorchServe with --ncs so that no snapshot is written",
        )


def _repeated(counts: Mapping[str, int]) -> Iterator[Finding]:
    for key, count in counts.items():
        if count > 1:
            yield Finding("warning", key, f"{count} times", "only its last line counts", "keep one")


def _unknown(key: str) -> Finding:
    near = nearest(key, KNOWN)
    if near is not None:
        return Finding(
            "problem", key, "no key of TorchServe's", "it is ignored, and the default holds", f"write {near}"
        )
    of_model = nearest(key, MODEL_KEYS)
    remedy = f"set {of_model} for each model, in models=" if of_model else "remove it"
    return Finding("warning", key, "no key of TorchServe 0.12", "it is ignored", remedy)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that was probably meant; None where none is near, or where it is too long to be compared."""
    if len(key) > _MAX_COMPARED:
        return None
    by_plain = {_plain(name): name for name in known}
    found = difflib.get_close_matches(_plain(key), list(by_plain), n=1, cutoff=_NEAR)
    return by_plain[found[0]] if found else None


def _plain(key: str) -> str:
    """Return a key without what people vary: case, separators, and the TS_ of the environment."""
    return re.sub(r"[^a-z0-9]", "", key.lower().removeprefix("ts_"))


def _text(subject: Subject) -> Iterator[Finding]:
    for line in subject.lines:
        if line.swallowed:
            yield Finding(
                "warning",
                line.key,
                _shown(line, line.raw),
                f"Java drops a single backslash: this is read as {_shown(line, line.value)}",
                "write each backslash twice",
            )
        if line.is_continued and re.search(r"\b[a-z_]{5,}=", line.value):
            yield Finding(
                "warning",
                line.key,
                _shown(line, line.value),
                "the backslash at the end of its line makes the next line part of it",
                "remove the backslash, if the next line is a property of its own",
            )
        if line.key in LAUNCHER_KEYS and (line.separator != "=" or line.is_continued or "\\" in line.raw):
            yield Finding(
                "warning",
                line.key,
                line.raw,
                "`torchserve` itself reads this line too, and knows neither ':', blanks, escapes nor continuation lines",
                f"write {line.key}=VALUE on one line, without backslashes",
            )


def _shown(line: Line, text: str) -> str:
    return "a password, not shown here" if "pass" in line.key.lower() else text


def _unset(subject: Subject) -> Iterator[Finding]:
    environ = subject.environ
    for line in subject.lines:
        for name in unset_variables(line.value, environ):
            yield Finding(
                "problem",
                line.key,
                f"$${name}$$",
                f"{name} is not set here, and TorchServe does not start with a variable it cannot expand",
                f"set {name} where the server starts, or write the value",
            )


def _environment(subject: Subject) -> Iterator[Finding]:
    environ = subject.environ
    written = {line.key: line.value for line in subject.lines}
    changed = [KNOWN[key].variable for key, value in overrides(written, environ).items() if value != written.get(key)]
    if changed and written.get("enable_envvars_config", "").lower() == "true":
        yield Finding(
            "warning",
            "enable_envvars_config",
            f"true, and {', '.join(changed)} in the environment",
            "these variables go before the file",
            "unset them, or set enable_envvars_config=false",
        )
    if subject.other_config:
        yield Finding(
            "warning",
            "TS_CONFIG_FILE",
            subject.other_config,
            "`torchserve` reads the file this variable names, not this one",
            "unset it, or start with ts-handlers serve, which leaves it out",
        )


def _value(key: str, value: str, kind: Kind) -> Iterator[Finding]:
    if kind == "bool" and value.lower() not in ("true", "false"):
        yield Finding("problem", key, repr(value), "everything but true counts as false, blanks included", _bare(value))
    elif (kind in ("int", "port") and java_int(value) is None) or (kind == "long" and not _LONG.fullmatch(value)):
        yield Finding("problem", key, repr(value), "TorchServe does not start: it is no whole number", _bare(value))
    elif kind == "float" and _positive_float(value) is None:
        yield Finding("problem", key, repr(value), "no number above 0: tokens would be of no use, or live 60 min", "60")
    elif kind == "pattern" and compiled(value) is None:
        yield Finding(
            "problem", key, repr(value), "TorchServe does not start: it is no regular expression", "correct it"
        )
    elif key in _AT_LEAST_ONE and (java_int(value) or 0) < 1:
        yield Finding(
            "problem", key, value, "no model can be loaded, or no request served, with less than 1", "raise it"
        )


def _bare(value: str) -> str:
    """Return the remedy for a value that a blank or a comment spoils."""
    word = value.strip().partition(" ")[0]
    if value != value.strip() or "#" in value:
        return f"write {word} and nothing behind it: Java keeps blanks and knows no comment at a line's end"
    return "correct it"


def _positive_float(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number > 0 else None
