"""What a check found, and how bad it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

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
        return f"{self.severity}: {self.key}: {self.seen or 'empty'}: {self.why}; {self.remedy}"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by severity, otherwise in their order, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: ORDER.index(finding.severity))
