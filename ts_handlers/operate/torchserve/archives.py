"""The model archives (.mar) of a folder: who they say they are, and what their model-config.yaml asks of the server."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.reading import parse_json, parse_yaml, read_member
from ts_handlers.settings import shown
from ts_handlers.tasks import NAME_PATTERN

_MANIFEST = "MAR-INF/MANIFEST.json"
MAX_JAVA_INT = 2**31 - 1
_AT_LEAST_ONE = ("minWorkers", "batchSize")
_FILE_NAME = re.compile(r"[^,=/\\]+\.mar")


BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, KeyError, ValueError)
"""What Python's zipfile raises where an archive is damaged, encrypted, or unpacked to more than it should be."""


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


@dataclass(frozen=True, slots=True)
class Store:
    """The model store.

    Attributes:
        folder: The folder; None where the configuration names none.
        exists: Whether it is there.
        archives: Its .mar files that can be read, by file name.
        broken: Why the others cannot, by file name.
        others: What else TorchServe would load with load_models=all.
    """

    folder: Path | None = None
    exists: bool = False
    archives: Mapping[str, Archive] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def read_store(folder: Path | None) -> Store:
    """Read what there is in a model store, whatever it is."""
    if folder is None or not folder.is_dir():
        return Store(folder)
    archives: dict[str, Archive] = {}
    broken: dict[str, str] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.name.endswith(".mar") or not path.is_file():
            others += [path.name] if path.is_dir() or path.name.endswith((".model", ".tar.gz")) else []
            continue
        try:
            archives[path.name] = read_archive(path)
        except OperatorError as error:
            broken[path.name] = str(error)
    return Store(folder, True, archives, broken, tuple(others))


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
        return _read(path)
    except OperatorError:
        raise
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}") from error
    except BROKEN_ZIP as error:
        raise OperatorError(f"{path} is not a readable zip file ({error}); copy or build it again") from error


def _read(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive:
        members = frozenset(archive.namelist())
        if _MANIFEST not in members:
            raise OperatorError(f"{path} has no {_MANIFEST}, so it is no model archive; build it again")
        model = _read_manifest(path, read_member(archive, _MANIFEST))
        config = model.get("configFile")
        if config and config not in members:
            raise OperatorError(f"{path}: its manifest names {config!r}, which is not in it; build it again")
        settings = _read_settings(path, read_member(archive, config)) if config else None
    return Archive(path, model["modelName"], model["modelVersion"], settings, model.get("requirementsFile"))


def _read_manifest(path: Path, text: bytes) -> Mapping[str, Any]:
    try:
        manifest = parse_json(text)
    except ValueError as error:
        raise OperatorError(f"{path}: its {_MANIFEST} is not JSON ({error}); build it again") from error
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise OperatorError(f'{path}: its {_MANIFEST} has no "model" entry; build it again')
    for key in ("modelName", "modelVersion"):
        value = model.get(key)
        if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
            raise OperatorError(
                f"{path}: {key} is {value!r}; use letters, digits, '_', '-' and '.', at most 128 of them, and build it again"
            )
    for key in ("configFile", "requirementsFile"):
        if not isinstance(model.get(key), str | None):
            raise OperatorError(f"{path}: {key} is {shown(model[key])}; it must be a file's name: build it again")
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
