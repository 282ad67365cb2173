"""What the check found, how bad it is, and the rows of the tables it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar, cast, get_args

from ts_handlers.errors import printable

Severity = Literal["problem", "warning", "hint"]
T = TypeVar("T")
Rule = tuple[Callable[[T], str | bool], str]
"""What was seen, or whether there is something to find; and `severity: key: why; remedy`.

The text is a format string, into which `{seen}` and the facts of a table's subject go.
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


def judge(rules: Iterable[Rule[T]], subject: T, facts: Mapping[str, object]) -> Iterator[Finding]:
    """Apply rules; where one says True, the fact that is called like its key is what was seen."""
    for test, row in rules:
        seen = test(subject)
        if seen is not False:
            severity, key, text = row.split(": ", 2)
            key = key.format_map(facts)
            shown = facts.get(key, "not set") if seen is True else seen
            why, _, remedy = text.partition("; ")
            texts = [part.format_map({**facts, "seen": shown}) for part in (why, remedy)]
            yield Finding(cast("Severity", severity), key, str(shown), *texts)


def at_most(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the first findings, and say whether there are more; those are not looked for."""
    yield from islice(findings, MOST)
    if next(findings, None) is not None:
        yield found(
            "problem: the file", f"more than {MOST} findings of one kind", "the rest is not listed; give the right file"
        )


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by severity, otherwise in their order, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: get_args(Severity).index(finding.severity))
