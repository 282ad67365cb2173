"""The server that a config.properties makes: all that decides about it. Gathered once, then only read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ts_handlers.config.reading import load_yaml, parse_yaml
from ts_handlers.operate.check.text import Text, parse_text
from ts_handlers.operate.machine import Machine, this_machine
from ts_handlers.operate.torchserve.address import HTTP_PORTS
from ts_handlers.operate.torchserve.archives import read_store
from ts_handlers.operate.torchserve.config import ServerConfig, effective, java_int
from ts_handlers.operate.torchserve.models import LoadedModel, loaded_models
from ts_handlers.operate.torchserve.properties import read_text

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_MAX_PATTERN = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server's files are, for the one who looks at them.

    Attributes:
        root: The folder that is the server's root: an unpacked image; None where both have the same.
        model_store: The folder that is the server's model store; None for the one that the file names.
        is_here: Whether the server runs on this machine, so that its addresses can be tried.
    """

    root: Path | None = None
    model_store: Path | None = None
    is_here: bool = True

    def find(self, named: str) -> Path:
        """Return where a path of the server is: relative ones count from the folder it is started in, this one."""
        return self.root / named.lstrip("/") if self.root and named.startswith("/") else Path(named)


HERE = Place()


@dataclass(frozen=True)
class Server(ServerConfig):
    """One config.properties and its surroundings.

    Attributes:
        text: What the file's text says, and what is wrong with it as a text.
        place: Where the server's files are.
        machine: The machine it runs on.
        metrics_file: What is in the metrics.yaml that the file names, or why it cannot be read; None where there is none.
    """

    text: Text
    place: Place
    machine: Machine
    metrics_file: Mapping[str, Any] | str | None

    @cached_property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models that are loaded at start."""
        return tuple(loaded_models(self))

    @property
    def num_workers(self) -> int:
        """Workers of all models together."""
        return sum(model.workers for model in self.loaded)

    @property
    def uses_https(self) -> bool:
        """Whether an HTTP address wants a certificate."""
        return any(self.values.get(f"{role}_address", "").lower().startswith("https:") for role in HTTP_PORTS)

    @property
    def heap_mb(self) -> float | None:
        """What -Xmx says, in MiB; the last one counts."""
        found = re.findall(r"-Xmx([0-9]{1,15})([kKmMgGtT]?)(?=\s|$)", self.values.get("vmargs", ""))
        return int(found[-1][0]) * _UNITS[found[-1][1].lower()] / 2**20 if found else None

    def is_written(self, key: str) -> bool:
        """Whether the file or the environment sets a property, whatever to."""
        is_in_file = key in self.text.values or key in self.text.unclear
        return is_in_file or (key in self.values and key != "number_of_gpu")


def compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a regular expression; None where Python cannot read it, whose syntax has less than Java's."""
    try:
        return re.compile(pattern) if len(pattern) <= _MAX_PATTERN else None
    except (re.error, RecursionError, OverflowError):
        return None


def gather(
    path: Path,
    environ: Mapping[str, str] = os.environ,
    machine: Machine | None = None,
    place: Place = HERE,
    *,
    text: str | None = None,
    metrics_text: str | None = None,
) -> Server:
    """Read a config.properties and what it points to.

    Args:
        path: The file.
        environ: The environment TorchServe would be started in.
        machine: The machine that serves; None for this one.
        place: Where the server's files are.
        text: The content of the file, which then need not exist.
        metrics_text: The content of the metrics.yaml it names, which then need not exist either.

    Raises:
        ConfigError: The file cannot be read, or is no .properties text.
    """
    machine = machine or this_machine(environ)
    content = parse_text(read_text(path) if text is None else text, environ)
    values = effective(content.values, environ, content.options)
    values = {key: value for key, value in values.items() if key not in content.unclear}
    if machine.gpus is not None:  # ConfigManager replaces the number by what it finds, if that is less
        asked = java_int(values.get("number_of_gpu", ""))
        values["number_of_gpu"] = str(machine.gpus if asked is None else min(machine.gpus, asked))
    store, metrics = values.get("model_store"), values.get("metrics_config")
    return Server(
        path=path,
        lines=content.lines,
        values=values,
        environ=environ,
        store=read_store(place.model_store or (place.find(store) if store else None)),
        num_cpus=machine.num_node_cpus,
        text=content,
        place=place,
        machine=machine,
        metrics_file=_read_metrics(place.find(metrics), metrics_text) if metrics else None,
    )


def _read_metrics(path: Path, text: str | None) -> Mapping[str, Any] | str | None:
    try:
        content = load_yaml(path) if text is None else parse_yaml(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return f"no YAML: {' '.join(str(error).split())}"
    return content if isinstance(content, dict) else f"it holds {type(content).__name__}, not a mapping"
