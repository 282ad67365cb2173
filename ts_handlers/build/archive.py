"""Files -> .mar, through torch-model-archiver."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ts_handlers.build import reproducible
from ts_handlers.build.model_source import ModelSource
from ts_handlers.errors import OperatorError
from ts_handlers.tasks import TASKS

_PACKAGES = frozenset(
    {"ts", "ts_handlers", "tokenizers", "torch", "numpy", "onnxruntime", "openvino", "orjson", "yaml", "psutil"}
    | {"transformers", "safetensors", "threadpoolctl", "intel_extension_for_pytorch", "PIL"}
)
"""Packages a worker imports; a handler file of such a name would be imported in their place."""


def write_shim(task: str, folder: Path) -> Path:
    """Write the handler file of an archive: TorchServe wants a file that defines exactly one class."""
    path = folder / "handler.py"
    name = TASKS[task].handler
    path.write_text(
        f'"""Serves {task} with ts_handlers."""\n\n'
        f"from ts_handlers import {name}\n\n\n"
        f"class Handler({name}):\n"
        f'    """The handler of this archive."""\n',
        encoding="utf-8",
    )
    return path


def check_handler_file(file: Path) -> Path:
    """Refuse a team's handler file that TorchServe could not import.

    Raises:
        OperatorError: It is missing, no Python file, or has a name that is taken.
    """
    if not file.is_file() or file.suffix != ".py":
        raise OperatorError(f"--handler {file} is no Python file; give the path of one")
    if file.stem in _PACKAGES | sys.stdlib_module_names | _worker_modules():
        raise OperatorError(f"--handler {file.name}: a worker has a module {file.stem} already; rename the file")
    if not file.stem.isidentifier():
        raise OperatorError(
            f"--handler {file.name}: {file.stem} is no module name; use letters, digits and underscores"
        )
    return file


def _worker_modules() -> set[str]:
    """Return what lies beside TorchServe's worker script: its folder is on the import path."""
    spec = importlib.util.find_spec("ts")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return {path.stem for folder in folders for path in Path(folder).iterdir()}


def write_labels(source: ModelSource, folder: Path) -> list[Path]:
    """Write index_to_name.json; nothing where the task has no labels."""
    if not source.labels:
        return []
    path = folder / "index_to_name.json"
    names = {str(index): name for index, name in enumerate(source.labels)}
    path.write_text(json.dumps(names, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return [path]


def write_model_config(
    handler: Mapping[str, Any], folder: Path, *, response_timeout_s: int = 120, startup_timeout_s: int = 120
) -> Path:
    """Write model-config.yaml. Workers and batch are left to config.properties, which it would override.

    The timeouts are written, because TorchServe takes 120 s from a file without them, whatever config.properties says.
    """
    path = folder / "model-config.yaml"
    config = {"responseTimeout": response_timeout_s, "startupTimeout": startup_timeout_s, "handler": dict(handler)}
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def run_archiver(
    *,
    name: str,
    version: str,
    serialized_file: Path,
    handler_file: Path,
    config_file: Path,
    extra_files: list[Path],
    export_path: Path,
    model_file: Path | None = None,
) -> Path:
    """Run torch-model-archiver; return the .mar, the same bytes for the same files.

    It works in a folder of its own: the archiver empties TMPDIR/NAME, so two builds of one name would meet there. It
    only packs: what it writes is compressed when it is written anew.

    Raises:
        OperatorError: It failed, with what it said; or SOURCE_DATE_EPOCH is no date.
    """
    scratch = export_path / "archiver"
    scratch.mkdir()
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", name, "--version", version),
        *("--serialized-file", str(serialized_file), "--handler", str(handler_file)),
        *("--config-file", str(config_file), "--export-path", str(export_path), "--archive-format", "zip-store"),
    ]
    if model_file is not None:
        command += ["--model-file", str(model_file)]
    if extra_files:
        command += ["--extra-files", ",".join(map(str, extra_files))]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    result = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    mar = export_path / f"{name}.mar"
    if result.returncode != 0 or not mar.is_file():
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise OperatorError(f"torch-model-archiver failed: {lines[-1] if lines else result.returncode}")
    reproducible.rewrite(mar)
    return mar
