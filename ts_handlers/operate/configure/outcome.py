"""What `configure` is about to write: read back and checked first, then put in the place of what it wrote before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Machine, gather_text


def own_findings(output: Path, text: str, metrics_text: str, machine: Machine) -> list[Finding]:
    """Read back what would be written; return what is worth a warning.

    Raises:
        OperatorError: It has a problem: of an archive, or else a bug of this command.
    """
    environ = {name: value for name, value in os.environ.items() if name != "TS_CONFIG_FILE"}  # serve leaves it out
    subject = gather_text(output, text, environ, machine, metrics_text=metrics_text)
    findings = find_traps(subject)
    problems = [finding for finding in findings if finding.severity == "problem"]
    for problem in problems:
        if problem.key in subject.store.archives:
            raise OperatorError(f"{problem.key}: {problem.seen}: {problem.why}; {problem.remedy}")
    if problems:
        raise OperatorError(
            f"what configure decided does not pass its own check ({problems[0].describe()}): this is a bug of "
            f"ts-handlers, please report it; {output} is left as it was"
        )
    return [finding for finding in findings if finding.severity == "warning"]


def check_ours(file: Path, header: str, *, force: bool) -> None:
    """Check that a file may be replaced.

    Raises:
        OperatorError: It is no file, or was not written by this command and `force` is not given.
    """
    if file.exists() and not file.is_file():
        raise OperatorError(f"{file} is no regular file; choose another --output")
    if force or not file.exists():
        return
    if header not in file.read_text(encoding=properties.ENCODING):
        raise OperatorError(
            f"{file} was not written by this command; choose another --output, or --force to replace it"
        )


def write_files(contents: Mapping[Path, str]) -> None:
    """Write files, each in one step.

    Raises:
        OperatorError: One cannot be written.
    """
    for file, content in contents.items():
        with replacing(file) as part:
            part.write_text(content, encoding=properties.ENCODING)
