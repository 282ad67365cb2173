"""What an archive holds beside the model, and the .mar itself: the same files give the same bytes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from model_archiver.manifest_components.manifest import Manifest
from model_archiver.manifest_components.model import Model

from ts_handlers.build.sources.model import ModelSource
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError

_PACKAGES = frozenset(
    {"ts", "ts_handlers", "tokenizers", "torch", "numpy", "onnxruntime", "openvino", "orjson", "yaml", "psutil"}
    | {"transformers", "safetensors", "threadpoolctl", "intel_extension_for_pytorch", "PIL"}
)
"""Packages a worker imports; a handler file of such a name would be imported in their place."""

MANIFEST = "MAR-INF/MANIFEST.json"

DATE_VARIABLE = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that stand for now (https://reproducible-builds.org/specs/source-date-epoch/)."""

_FIRST, _LAST = datetime(1980, 1, 1, tzinfo=timezone.utc), datetime(2107, 12, 31, 23, 59, 58, tzinfo=timezone.utc)
"""Dates a zip can hold."""

_ATTRIBUTES = (stat.S_IFREG | 0o644) << 16
_UNIX = 3


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


def pack(
    path: Path,
    *,
    name: str,
    version: str,
    serialized_file: Path,
    handler_file: Path,
    config_file: Path,
    extra_files: Sequence[Path] = (),
    model_file: Path | None = None,
) -> Path:
    """Write a .mar: the same bytes for the same files, whatever their dates, modes and order.

    The manifest is torch-model-archiver's own. Its zip is not: that has the clock and the modes of the files in it. Equal
    bytes need an equal zlib too: zlib-ng, say, deflates otherwise.

    Raises:
        OperatorError: A file cannot be read; two have one name; or SOURCE_DATE_EPOCH is no date.
    """
    created = creation_time()
    model = Model(
        name,
        serialized_file.name,
        handler_file.name,
        model_file and model_file.name,
        version,
        config_file=config_file.name,
    )
    manifest = Manifest("python", model).manifest_dict | {"createdOn": created.strftime("%d/%m/%Y %H:%M:%S")}
    files: dict[str, Path] = {}
    for file in (serialized_file, handler_file, config_file, *extra_files, *((model_file,) if model_file else ())):
        if files.setdefault(file.name, file) != file:
            raise OperatorError(f"{file} and {files[file.name]} would have one name in the archive; rename one of them")
    try:
        with zipfile.ZipFile(path, "w") as target:
            target.writestr(_entry(MANIFEST, created), json.dumps(manifest, indent=2))
            for name_inside, file in sorted(files.items()):
                entry = _entry(name_inside, created)
                entry.file_size = file.stat().st_size  # decides whether the entry is written as zip64
                with file.open("rb") as content, target.open(entry, "w") as packed:
                    shutil.copyfileobj(content, packed, 2**20)
    except OSError as error:
        raise OperatorError(f"{path.name} cannot be written: {error}") from error
    return path


def creation_time() -> datetime:
    """Return what an archive says it was made at: SOURCE_DATE_EPOCH in UTC, without it the first date a zip can hold.

    Raises:
        OperatorError: SOURCE_DATE_EPOCH is no number of seconds, or a date that a zip cannot hold.
    """
    text = os.environ.get(DATE_VARIABLE)
    if not text:
        return _FIRST
    try:
        when = datetime.fromtimestamp(int(text), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise OperatorError(f"{DATE_VARIABLE} is {text!r}; give seconds since 1970, or unset it") from error
    if not _FIRST <= when <= _LAST:
        raise OperatorError(f"{DATE_VARIABLE} is {text}, in {when.year}; an archive's dates are from 1980 to 2107")
    return when


def _entry(name: str, created: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, created.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = _UNIX
    entry.external_attr = _ATTRIBUTES
    return entry
