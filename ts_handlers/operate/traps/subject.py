"""The configuration under check, with all that decides what TorchServe makes of it. Gathered once, then only read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ts_handlers.cgroup import read_lines
from ts_handlers.cpu import CpuBudget, cpu_budget
from ts_handlers.cpu.topology import parse_cpu_list
from ts_handlers.errors import OperatorError
from ts_handlers.memory import memory_limit
from ts_handlers.operate.build_report import BuildReport, read_reports
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.archives import Store
from ts_handlers.operate.torchserve.config import ServerConfig, parse_config
from ts_handlers.operate.traps.contents import Contents, read_contents
from ts_handlers.reading import load_yaml, parse_yaml


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that serves.

    Attributes:
        budget: The CPUs of this process.
        num_node_cpus: CPUs of the whole machine.
        memory_mb: Memory this process may use, MiB.
        python: The `python` of PATH; None where there is none.
    """

    budget: CpuBudget
    num_node_cpus: int
    memory_mb: float
    python: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsFile:
    """The metrics.yaml a file names.

    Attributes:
        path: Where it is.
        content: What is in it; None where it cannot be read.
        error: Why not.
    """

    path: Path
    content: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Subject(ServerConfig):
    """One config.properties and its surroundings.

    Attributes:
        contents: What is in the store's archives that can be read, by file name.
        reports: What builds measured, by (model name, version).
        metrics_file: The metrics.yaml; None where the file names none.
        machine: The machine.
        other_config: What TS_CONFIG_FILE names there; None where it is this file or not set.
    """

    contents: Mapping[str, Contents]
    reports: Mapping[tuple[str, str], BuildReport]
    metrics_file: MetricsFile | None
    machine: Machine
    other_config: str | None = None


_MAX_PATTERN = 10_000


def compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a regular expression; None where Python cannot read it, whose syntax has less than Java's."""
    try:
        return re.compile(pattern) if len(pattern) <= _MAX_PATTERN else None
    except (re.error, RecursionError, OverflowError):
        return None


def gather(path: Path, environ: Mapping[str, str] = os.environ, machine: Machine | None = None) -> Subject:
    """Read a config.properties and what it points to.

    Args:
        path: The file.
        environ: The environment TorchServe would be started in.
        machine: The machine that serves; None for this one.

    Raises:
        ConfigError: The file cannot be read.
    """
    return gather_text(path, properties.read_text(path), environ, machine)


def gather_text(
    path: Path,
    text: str,
    environ: Mapping[str, str] = os.environ,
    machine: Machine | None = None,
    *,
    metrics_text: str | None = None,
) -> Subject:
    """Take a text for the content of `path`, which need not exist.

    Args:
        path: Where the text would be.
        text: The properties.
        environ: The environment TorchServe would be started in.
        machine: The machine that serves; None for this one.
        metrics_text: Content of the metrics.yaml it names, which need not exist either; None to read that file.

    Raises:
        ConfigError: It is no .properties text.
    """
    machine = machine or this_machine(environ)
    config = parse_config(path, text, environ, num_cpus=machine.num_node_cpus)
    named = config.values.get("metrics_config")
    contents, reports, broken = _look_into(config.store)
    return Subject(
        path=path,
        lines=config.lines,
        values=config.values,
        environ=environ,
        store=replace(config.store, broken={**config.store.broken, **broken}),
        num_cpus=config.num_cpus,
        contents=contents,
        reports=reports,
        metrics_file=_read_metrics(path.parent / named, metrics_text) if named else None,
        machine=machine,
        other_config=_other_config(path, environ),
    )


def _other_config(path: Path, environ: Mapping[str, str]) -> str | None:
    named = environ.get("TS_CONFIG_FILE")
    return named if named and Path(named).resolve() != path.resolve() else None


def this_machine(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Look at the machine this runs on."""
    online = read_lines(root / "sys/devices/system/cpu/online")
    return Machine(
        budget=cpu_budget(root),
        num_node_cpus=len(parse_cpu_list(online[0])) if online else os.cpu_count() or 1,
        memory_mb=memory_limit(root) / MIB,
        python=shutil.which("python", path=environ.get("PATH")),
    )


def _look_into(
    store: Store,
) -> tuple[dict[str, Contents], Mapping[tuple[str, str], BuildReport], dict[str, str]]:
    """Return what is in the archives, what their builds measured, and what cannot be read."""
    contents: dict[str, Contents] = {}
    broken: dict[str, str] = {}
    for name, archive in store.archives.items():
        try:
            contents[name] = read_contents(archive.path)
        except OperatorError as error:  # noqa: PERF203  # each is read apart
            broken[name] = str(error)
    if store.folder is None or not store.exists:
        return contents, {}, broken
    try:
        return contents, read_reports(store.folder, store.archives.values()), broken
    except OperatorError as error:
        return contents, {}, {**broken, "build reports": str(error)}


def _read_metrics(path: Path, text: str | None) -> MetricsFile:
    try:
        content = load_yaml(path) if text is None else parse_yaml(text)
    except OSError as error:
        return MetricsFile(path, error=error.strerror or str(error))
    except ValueError as error:
        return MetricsFile(path, error=f"no YAML: {' '.join(str(error).split())}")
    if not isinstance(content, dict):
        return MetricsFile(path, error=f"it holds {type(content).__name__}, not a mapping")
    return MetricsFile(path, content)
