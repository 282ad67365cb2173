"""What the check found, how bad it is, and the tables of rules it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, ParamSpec, cast

from ts_handlers.errors import printable

Severity = Literal["problem", "warning", "hint"]
P = ParamSpec("P")
Rules = Mapping[str, Callable[P, str | bool]]
"""By the line that is printed, `severity: key: why; remedy`: what was seen, or whether there is something to find.

The line is a format string, into which `{seen}` goes, and what was judged: `{0}`, mostly the server, and `{1}`.
"""

MOST = 200
"""Findings of one table: a file with more of them is another kind of file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a configuration.

    Attributes:
        severity: A problem keeps the server or a model from doing what the file says; a warning costs safety, speed or
            memory; a hint is good to know.
        key: The property it is about, or the archive.
        seen: What the file has; empty for an empty value.
        why: What TorchServe makes of it.
        remedy: What to do.
    """

    severity: Severity
    key: str
    seen: str
    why: str
    remedy: str

    def describe(self) -> str:
        """Say it in one line."""
        return printable(f"{self.severity}: {self.key}: {self.seen or 'empty'}: {self.why}; {self.remedy}")


def found(about: str, seen: object, text: str) -> Finding:
    """Make a finding of `severity: key`, what was seen, and `why; remedy`."""
    severity, _, key = about.partition(": ")
    why, _, remedy = text.partition("; ")
    return Finding(cast("Severity", severity), key, str(seen), why, remedy)


def judge(rules: Mapping[str, Callable[..., str | bool]], *subjects: Any, **facts: object) -> Iterator[Finding]:
    """Apply rules to what they judge; where one says True, the value of the server's property is what was seen."""
    for row, test in rules.items():
        seen = test(*subjects)
        if seen is not False:
            severity, key, text = row.split(": ", 2)
            key = key.format(*subjects, **facts)
            shown = subjects[0].values.get(key, "not set") if seen is True else seen
            yield found(f"{severity}: {key}", shown, text.format(*subjects, seen=shown, **facts))


def at_most(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the first findings, and say whether there are more; those are not looked for."""
    yield from islice(findings, MOST)
    if next(findings, None) is not None:
        yield found(
            "problem: the file", f"more than {MOST} findings of one kind", "the rest is not listed; give the right file"
        )
