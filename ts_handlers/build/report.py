"""NAME.build.json: what was built, from what, and what was measured."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_handlers.build.target import is_here, target_cpu
from ts_handlers.config.reading import load_json
from ts_handlers.config.settings import from_mapping, shown
from ts_handlers.errors import OperatorError
from ts_handlers.machine.features import read_cpuinfo

if TYPE_CHECKING:
    from ts_handlers.build.choose import Chosen, Data
    from ts_handlers.build.request import BuildRequest
    from ts_handlers.build.sources.model import ModelSource

SUFFIX = ".build.json"
MAX_WEIGHT = 1_000_000.0

_PACKAGES = (
    "ts_handlers",
    "torch",
    "torchserve",
    "transformers",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "torchao",
    "neural-compressor-pt",
    "intel-extension-for-pytorch",
    "pillow",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A report: what `configure` and `tune` go by, and everything else for people.

    Attributes:
        name: The model's name.
        version: Its version.
        weight: The model's share of the workers, against the other models' weights.
        rss_mb: Resident memory in MiB of a fresh process after one request; None where it was not measured.
        latency_ms: Milliseconds of a call, by its shape: 1x24 is one sequence of 24 tokens.
        details: What else the file holds.
    """

    name: str = ""
    version: str = ""
    weight: float = 1.0
    rss_mb: float | None = None
    latency_ms: Any = field(default_factory=dict)
    details: Any = field(default_factory=dict)

    @property
    def single_ms(self) -> float | None:
        """Milliseconds of a call with one sequence, on one thread; None where it was not measured."""
        found: float | None = next((time for shape, time in self.latency_ms.items() if shape.startswith("1x")), None)
        return found

    @classmethod
    def read(cls, file: Path) -> BuildReport:
        """Read one.

        Raises:
            OperatorError: It cannot be read, or says something that cannot be.
        """
        names = {item.name for item in dataclasses.fields(cls)} - {"details"}
        try:
            content = load_json(file)
        except OSError as error:
            raise OperatorError(f"cannot read {file}: {error.strerror or error}") from error
        except ValueError as error:
            raise OperatorError(f"{file} is not JSON ({error}); build the model again, or remove the file") from error
        if not isinstance(content, dict):
            raise OperatorError(f"{file} is {shown(content)}, not an object; build the model again")
        known = {key: value for key, value in content.items() if key in names and value is not None}
        details = {key: value for key, value in content.items() if key not in names}
        report = dataclasses.replace(from_mapping(cls, known, f"{file}:"), details=details)
        report.check(file)
        return report

    def check(self, file: Path) -> None:
        """Check what was read.

        Raises:
            OperatorError: No model is named, or a weight, a memory or a time is no positive number.
        """
        if not (self.name and self.version):
            raise OperatorError(f"{file} names no model and version; build the model again, or remove the file")
        if not isinstance(self.latency_ms, Mapping):
            raise OperatorError(f"{file}: latency_ms is {shown(self.latency_ms)}, not a table; build the model again")
        numbers = {"weight": self.weight, "rss_mb": self.rss_mb, "latency_ms of one sequence": self.single_ms}
        for key, value in numbers.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and value > 0):
                raise OperatorError(
                    f"{file}: {key} is {shown(value)}; it must be a number above 0: build the model again"
                )
        if self.weight > MAX_WEIGHT:
            raise OperatorError(f"{file}: weight is {self.weight:g}; write a number up to {MAX_WEIGHT:,.0f}")

    def write(self, file: Path) -> None:
        """Write it."""
        known = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "details"}
        file.write_text(json.dumps(known | self.details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def details_of(
    request: BuildRequest, source: ModelSource, data: Data, chosen: Chosen, section: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a report says for people, without what is measured on the finished archive."""
    method = chosen.method
    return {
        "task": request.task,
        "backend": method.backend,
        "precision": method.precision,
        "quantizer": method.quantizer,
        "form": method.form,
        "target_cpu": target_cpu(request.target_cpu).name,
        "source_sha256": source.digest,
        "architecture": source.architecture,
        "num_parameters": source.num_parameters,
        "handler": dict(section),
        **chosen.engine.details,
        **_gate(request, data, chosen),
        "built_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "build_cpu": {"name": (cpu := read_cpuinfo()).model_name, "instruction_sets": list(cpu.instruction_sets)},
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _gate(request: BuildRequest, data: Data, chosen: Chosen) -> dict[str, Any]:
    if not chosen.trials:
        return {}
    files = {"calibration": data.calibration, "evaluation": data.evaluation}
    return {
        "gate": {
            "limits": request.limits.as_dict(),
            "measured_on_target": is_here(request.target_cpu),
            "data": {
                name: {"sha256": found.digest, "num_samples": len(found)} for name, found in files.items() if found
            },
            **chosen.details(),
        }
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu in place of onnxruntime, say
        return None
