"""NAME.build.json: what was built, from what, and what was measured."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ts_handlers.build.choose import Chosen, Data
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.target import is_here, target_cpu
from ts_handlers.cpu.features import read_cpuinfo

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


def build_report(
    request: BuildRequest, source: ModelSource, data: Data, chosen: Chosen, section: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the report, without what is measured on the finished archive."""
    method = chosen.method
    return {
        "name": request.name,
        "version": request.version,
        "weight": request.weight,
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
