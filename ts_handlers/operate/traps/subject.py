"""The configuration under check, with all that decides what TorchServe makes of it. Gathered once, then only read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.build.report import BuildReport
from ts_handlers.cgroup import read_lines
from ts_handlers.cpu import CpuBudget, cpu_budget
from ts_handlers.cpu.topology import parse_cpu_list
from ts_handlers.errors import OperatorError
from ts_handlers.memory import memory_limit
from ts_handlers.operate import properties
from ts_handlers.operate.archives import Archive, read_archive
from ts_handlers.operate.configure.build_report import read_reports
from ts_handlers.operate.configure.shares import MIB
from ts_handlers.operate.traps.contents import Contents, read_contents
from ts_handlers.operate.traps.known_keys import KNOWN
from ts_handlers.reading import load_yaml, parse_yaml

_VARIABLE = re.compile(r"\$\$([^$]+[^$])\$\$")
"""How TorchServe finds a variable in a value; a name has at least two characters."""


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
class Store:
    """The model store.

    Attributes:
        folder: The folder; None where the file names none.
        exists: Whether it is there.
        archives: Its .mar files that can be read, by file name.
        broken: Why the others cannot, by file name.
        others: What else TorchServe would load with load_models=all.
        reports: What builds measured, by (model name, version).
        contents: What is in the archives that can be read, by file name.
    """

    folder: Path | None = None
    exists: bool = False
    archives: Mapping[str, Archive] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    reports: Mapping[tuple[str, str], BuildReport] = field(default_factory=dict)
    contents: Mapping[str, Contents] = field(default_factory=dict)


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
class Subject:
    """One config.properties and its surroundings.

    Attributes:
        path: The file.
        lines: Its properties as they are written.
        values: What TorchServe goes by: the last value of each key, variables expanded, environment over it.
        store: The model store.
        metrics: The metrics.yaml; None where the file names none.
        machine: The machine.
        environ: The environment TorchServe would be started in.
        other_config: What TS_CONFIG_FILE names there; None where it is this file or not set.
    """

    path: Path
    lines: tuple[properties.Line, ...]
    values: Mapping[str, str]
    store: Store
    metrics: MetricsFile | None
    machine: Machine
    environ: Mapping[str, str]
    other_config: str | None = None

    def is_true(self, key: str, *, default: bool = False) -> bool:
        """Read a switch as Java's parseBoolean does: everything but "true" is false."""
        return self.values.get(key, str(default)).lower() == "true"

    def number(self, key: str, default: int) -> int:
        """Read a whole number; the default where TorchServe could not read it (another check says so)."""
        value = java_int(self.values.get(key, ""))
        return default if value is None else value


def java_int(text: str) -> int | None:
    """Read text as Java's Integer.parseInt does; None where it throws."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        return None
    return int(text) if -(2**31) <= int(text) < 2**31 else None


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
    lines = properties.parse_lines(text)
    values = effective({line.key: line.value for line in lines}, environ)
    named = values.get("metrics_config")
    return Subject(
        path=path,
        lines=lines,
        values=values,
        store=_read_store(values.get("model_store"), path.parent),
        metrics=_read_metrics(path.parent / named, metrics_text) if named else None,
        machine=machine or this_machine(environ),
        environ=environ,
        other_config=_other_config(path, environ),
    )


def _other_config(path: Path, environ: Mapping[str, str]) -> str | None:
    named = environ.get("TS_CONFIG_FILE")
    return named if named and Path(named).resolve() != path.resolve() else None


def effective(values: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Expand `$$VAR$$` and, with enable_envvars_config, let TS_ variables go before the file."""
    found = {key: _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), value) for key, value in values.items()}
    if found.get("enable_envvars_config", "false").lower() == "true":
        found |= overrides(found, environ)
    return found


def overrides(values: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the TS_ variables of the environment set, by key; whether the file lets them is not asked."""
    is_url_open = values.get("use_env_allowed_urls", "false").lower() == "true"
    return {
        key: environ[known.variable]
        for key, known in KNOWN.items()
        if known.variable in environ and (key != "allowed_urls" or is_url_open)
    }


def unset_variables(value: str, environ: Mapping[str, str]) -> list[str]:
    """Return the variables a value wants expanded that are not set."""
    return [name for name in _VARIABLE.findall(value) if name not in environ]


def this_machine(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Look at the machine this runs on."""
    online = read_lines(root / "sys/devices/system/cpu/online")
    return Machine(
        budget=cpu_budget(root),
        num_node_cpus=len(parse_cpu_list(online[0])) if online else os.cpu_count() or 1,
        memory_mb=memory_limit(root) / MIB,
        python=shutil.which("python", path=environ.get("PATH")),
    )


def _read_store(named: str | None, base: Path) -> Store:
    if named is None:
        return Store()
    folder = base / named
    if not folder.is_dir():
        return Store(folder)
    archives: dict[str, Archive] = {}
    contents: dict[str, Contents] = {}
    broken: dict[str, str] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.name.endswith(".mar") or not path.is_file():
            others += [path.name] if path.is_dir() or path.name.endswith((".model", ".tar.gz")) else []
            continue
        try:
            archive = read_archive(path)
            contents[path.name] = read_contents(path)
            archives[path.name] = archive
        except OperatorError as error:
            broken[path.name] = str(error)
    try:
        reports = read_reports(folder, archives.values())
    except OperatorError as error:
        broken["build reports"] = str(error)
        reports = {}
    return Store(folder, True, archives, broken, tuple(others), reports, contents)


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
