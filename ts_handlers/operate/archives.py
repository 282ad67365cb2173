"""The model archives (.mar) of a folder: who they say they are, and what their model-config.yaml asks of the server."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.reading import parse_json, parse_yaml

_MANIFEST = "MAR-INF/MANIFEST.json"
MAX_JAVA_INT = 2**31 - 1
_AT_LEAST_ONE = ("minWorkers", "batchSize")
_FILE_NAME = re.compile(r"[^,=/\\]+\.mar")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


@dataclass(frozen=True, slots=True)
class Archive:
    """One .mar file.

    Attributes:
        path: The file.
        model_name: `modelName` of its manifest.
        version: `modelVersion` of its manifest.
        settings: Its model-config.yaml; None where it has none.
        requirements_file: `requirementsFile` of its manifest; None where it has none.
    """

    path: Path
    model_name: str
    version: str
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    requirements_file: str | None = None

    def setting(self, key: str) -> int | None:
        """Return a positive integer of model-config.yaml; None where TorchServe would go on as if it were not there.

        It takes 32-bit integers only, and makes 1 of a minWorkers or batchSize below it.
        """
        value = (self.settings or {}).get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not -MAX_JAVA_INT <= value <= MAX_JAVA_INT:
            return None
        if key in _AT_LEAST_ONE:
            return max(1, value)
        return value if value > 0 else None


def read_archives(folder: Path) -> tuple[Archive, ...]:
    """Read every .mar of a folder, by file name.

    Raises:
        OperatorError: The folder does not exist or has no .mar, one cannot be read, or two hold the same model and
            version.
    """
    if not folder.is_dir():
        raise OperatorError(f"there is no folder {folder}; give the folder that holds your .mar files")
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(".mar") and path.is_file())
    if not paths:
        raise OperatorError(
            f"{folder} has no .mar file; build one with: ts-handlers build SOURCE ... --output {folder}"
        )
    archives = tuple(read_archive(path) for path in paths)
    seen: dict[tuple[str, str], Archive] = {}
    for archive in archives:
        key = (archive.model_name, archive.version)
        if key in seen:
            raise OperatorError(
                f"{seen[key].path.name} and {archive.path.name} in {folder} are both {key[0]} version {key[1]}; "
                "remove one, or build it with another --name or version"
            )
        seen[key] = archive
    return archives


def read_archive(path: Path) -> Archive:
    """Read the manifest and the model-config.yaml of one archive.

    Raises:
        OperatorError: It is no zip file, is damaged, has no manifest, or has a model-config.yaml that is no mapping.
    """
    if not _FILE_NAME.fullmatch(path.name) or ".." in path.name:
        raise OperatorError(
            f"{path.name!r}: TorchServe cannot load a file whose name holds a comma, '=' or '..'; rename it"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = frozenset(archive.namelist())
            if _MANIFEST not in members:
                raise OperatorError(f"{path} has no {_MANIFEST}, so it is no model archive; build it again")
            model = _read_manifest(path, archive.read(_MANIFEST))
            config = model.get("configFile")
            if config and config not in members:
                raise OperatorError(f"{path}: its manifest names {config!r}, which is not in it; build it again")
            settings = _read_settings(path, archive.read(config)) if config else None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OperatorError(f"{path} is not a readable zip file ({error}); copy or build it again") from error
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}") from error
    return Archive(path, model["modelName"], model["modelVersion"], settings, model.get("requirementsFile"))


def _read_manifest(path: Path, text: bytes) -> Mapping[str, Any]:
    try:
        manifest = parse_json(text)
    except ValueError as error:
        raise OperatorError(f"{path}: its {_MANIFEST} is not JSON ({error}); build it again") from error
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise OperatorError(f'{path}: its {_MANIFEST} has no "model" entry; build it again')
    name = model.get("modelName")
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        raise OperatorError(f"{path}: modelName is {name!r}; use letters, digits, '_', '-' and '.', and build it again")
    version = model.get("modelVersion")
    if not isinstance(version, str) or not _MODEL_NAME.fullmatch(version) or ".." in version:
        raise OperatorError(
            f"{path}: modelVersion is {version!r}; use letters, digits, '_', '-' and '.', as in 1.0, and build it again"
        )
    return model


def _read_settings(path: Path, text: bytes) -> Mapping[str, Any]:
    try:
        settings = parse_yaml(text)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise OperatorError(
            f"{path}: its model-config.yaml is not YAML ({reason}); correct it and build again"
        ) from error
    if not isinstance(settings, dict):
        raise OperatorError(f"{path}: its model-config.yaml is {settings!r}, not a mapping; correct it and build again")
    return settings
