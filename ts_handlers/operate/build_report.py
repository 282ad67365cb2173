"""The reports that builds left in a model store, by the archives they are about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ts_handlers.build.report import SUFFIX, BuildReport
from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.archives import Archive


def read_reports(folder: Path, archives: Iterable[Archive]) -> dict[tuple[str, str], BuildReport]:
    """Return the reports of these archives by (model name, version).

    A report belongs to the archive whose manifest has its name and version, however the files are called.

    Raises:
        OperatorError: A report cannot be read, two are about the same model and version, or one beside NAME.mar says
            nothing of the model in it.
    """
    wanted = {(archive.model_name, archive.version): archive for archive in archives}
    beside = {archive.path.name.removesuffix(".mar") + SUFFIX: archive for archive in wanted.values()}
    found: dict[tuple[str, str], Path] = {}
    reports: dict[tuple[str, str], BuildReport] = {}
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        report = BuildReport.read(file)
        key = (report.name, report.version)
        if key not in wanted and file.name in beside:
            archive = beside[file.name]
            raise OperatorError(
                f"{file} is about {key[0]} version {key[1]}, and {archive.path.name} is {archive.model_name} version "
                f"{archive.version}; copy the report of the same build beside it, or remove this one"
            )
        if key in found:
            raise OperatorError(
                f"{found[key]} and {file} are both about {key[0]} version {key[1]}; remove the older one"
            )
        if key in wanted:
            found[key], reports[key] = file, report
    return reports
