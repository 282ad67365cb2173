"""NAME.build.json, which `build` leaves beside NAME.mar: what a model weighs, how much memory a worker of it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.reading import load_json

_SUFFIX = ".build.json"
MAX_WEIGHT = 1_000_000.0


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What `configure` takes from a build's report.

    Attributes:
        file: Where it was read; None where there is none.
        weight: The model's share of the workers, against the other models' weights.
        rss_mb: Resident memory in MiB of a fresh process after one request; None where it was not measured.
        latency_ms: One call with one sequence on one thread, in milliseconds; None where it was not measured.
    """

    file: Path | None = None
    weight: float = 1.0
    rss_mb: float | None = None
    latency_ms: float | None = None


NO_REPORT = BuildReport()


def read_reports(folder: Path, archives: Iterable[Archive]) -> dict[tuple[str, str], BuildReport]:
    """Return the reports of these archives by (model name, version).

    A report belongs to the archive whose manifest has its name and version, however the files are called.

    Raises:
        OperatorError: A report cannot be read, two are about the same model and version, or one beside NAME.mar says
            nothing of the model in it.
    """
    wanted = {(archive.model_name, archive.version): archive for archive in archives}
    beside = {archive.path.name.removesuffix(".mar") + _SUFFIX: archive for archive in wanted.values()}
    found: dict[tuple[str, str], BuildReport] = {}
    for file in sorted(folder.glob(f"*{_SUFFIX}")):
        content = _read_json(file)
        key = (_text(file, content, "name"), _text(file, content, "version"))
        if key not in wanted and file.name in beside:
            archive = beside[file.name]
            raise OperatorError(
                f"{file} is about {key[0]} version {key[1]}, and {archive.path.name} is {archive.model_name} version "
                f"{archive.version}; copy the report of the same build beside it, or remove this one"
            )
        if key in found:
            raise OperatorError(
                f"{found[key].file} and {file} are both about {key[0]} version {key[1]}; remove the older one"
            )
        if key in wanted:
            found[key] = parse_report(file, content)
    return found


def parse_report(file: Path, content: Mapping[str, Any]) -> BuildReport:
    """Check the numbers of a report.

    Raises:
        OperatorError: A weight, memory or latency that is no positive number.
    """
    latencies = content.get("latency_ms")
    if latencies is not None and not isinstance(latencies, Mapping):
        raise OperatorError(f"{file}: latency_ms is {latencies!r}, not a table; build the model again")
    single = [key for key in latencies or () if str(key).startswith("1x")]
    weight = _positive(file, content, "weight")
    if weight is not None and weight > MAX_WEIGHT:
        raise OperatorError(f"{file}: weight is {weight:g}; write a number up to {MAX_WEIGHT:,.0f}")
    return BuildReport(
        file=file,
        weight=1.0 if weight is None else weight,
        rss_mb=_positive(file, content, "rss_mb"),
        latency_ms=_positive(file, latencies, single[0]) if latencies and single else None,
    )


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = load_json(file)
    except OSError as error:
        raise OperatorError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise OperatorError(f"{file} is not JSON ({error}); build the model again, or remove the file") from error
    if not isinstance(content, dict):
        raise OperatorError(f"{file} holds {type(content).__name__}, not an object; build the model again")
    return content


def _text(file: Path, content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise OperatorError(f"{file}: {key} is {value!r}, not a text; build the model again, or remove the file")
    return value


def _positive(file: Path, content: Mapping[str, Any], key: str) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise OperatorError(f"{file}: {key} is {value!r}; write a number above 0, or build the model again")
    return float(value)
