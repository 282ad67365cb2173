"""What a check found, and how bad it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from ts_handlers.errors import printable

Severity = Literal["problem", "warning", "hint"]

ORDER: tuple[Severity, ...] = ("problem", "warning", "hint")


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


MOST = 50
"""Findings of one kind: a file with more of them is another kind of file."""


def at_most(findings: Iterator[Finding], key: str, what: str) -> Iterator[Finding]:
    """Yield the first findings of one kind, and say whether there are more: `what` they are. Those are not looked for."""
    yield from islice(findings, MOST)
    if next(findings, None) is not None:
        yield Finding("problem", key, f"more than {MOST} {what}", "the rest is not listed", "give the right file")


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by severity, otherwise in their order, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: ORDER.index(finding.severity))
