"""The models of a model store, archives (.mar) and folders: who they say they are, and what they ask of the server."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.config.reading import MAX_BYTES, parse_json, parse_yaml
from ts_handlers.config.settings import shown
from ts_handlers.config.tasks import NAME_PATTERN
from ts_handlers.errors import OperatorError

_MANIFEST = "MAR-INF/MANIFEST.json"
MAX_JAVA_INT = 2**31 - 1
_AT_LEAST_ONE = ("minWorkers", "batchSize")
_FILE_NAME = re.compile(r"[^,=/\\]+\.mar")

ENDS = "TorchServe ends when it loads it"
NEVER_READY = "TorchServe takes it for a model, which is never ready"
STARTS_WITHOUT = "the server starts without it"

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, KeyError, ValueError)
"""What Python's zipfile raises where an archive is damaged, encrypted, or unpacked to more than it should be."""


class ArchiveError(OperatorError):
    """An archive that TorchServe cannot serve.

    Attributes:
        reason: What is wrong with it.
        effect: What TorchServe does about it.
        remedy: What to do.
    """

    def __init__(self, path: Path, reason: str, effect: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.reason = reason
        self.effect = effect
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Archive:
    """One .mar file, or a folder with the same content.

    Attributes:
        path: The file.
        model_name: Its name: `modelName` of its manifest, or made of the file's.
        version: `modelVersion` of its manifest; 1.0 where it has none.
        settings: Its model-config.yaml; None where it has none.
        requirements_file: `requirementsFile` of its manifest; None where it has none.
        handler: `handler` of its manifest; empty where it names none.
        names: Names of the files and folders at its top.
        source: The handler's file; empty where it is not in the archive (a handler of TorchServe's own).
    """

    path: Path
    model_name: str
    version: str
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    requirements_file: str | None = None
    handler: str = ""
    names: frozenset[str] = frozenset()
    source: str = ""

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

    @property
    def handler_module(self) -> str:
        """The top-level name the handler is imported by."""
        return _module(self.handler)


@dataclass(frozen=True, slots=True)
class Store:
    """The model store.

    Attributes:
        folder: The folder; None where the configuration names none.
        exists: Whether it is there.
        archives: Its models that can be read, by file name.
        broken: Why the others cannot, by file name.
        others: Archives in other forms, which TorchServe loads too.
    """

    folder: Path | None = None
    exists: bool = False
    archives: Mapping[str, Archive] = field(default_factory=dict)
    broken: Mapping[str, ArchiveError] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of that name which TorchServe would load."""
        return name in self.archives or name in self.broken or name in self.others


def read_store(folder: Path | None) -> Store:
    """Read what there is in a model store, whatever it is."""
    try:
        paths = None if folder is None or not folder.is_dir() else sorted(folder.iterdir())
    except OSError:  # its name is too long, or it may not be read
        paths = None
    if paths is None:
        return Store(folder)
    archives: dict[str, Archive] = {}
    broken: dict[str, ArchiveError] = {}
    others = []
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.name.endswith(".mar") or path.is_dir():
            try:
                archives[path.name] = read_model(path)
            except ArchiveError as error:
                broken[path.name] = error
        elif path.name.endswith((".model", ".tar.gz")):
            others.append(path.name)
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
    """Read an archive whose names are to be written into a configuration.

    Raises:
        OperatorError: TorchServe cannot serve it, or its names are no good ones.
    """
    if not _FILE_NAME.fullmatch(path.name) or ".." in path.name:
        raise OperatorError(
            f"{path.name!r}: TorchServe cannot load a file whose name holds a comma, '=' or '..'; rename it"
        )
    archive = read_model(path)
    for key, value in (("modelName", archive.model_name), ("modelVersion", archive.version)):
        if not NAME_PATTERN.fullmatch(value):
            raise OperatorError(
                f"{path}: {key} is {value!r}; use letters, digits, '_', '-' and '.', at most 128 of them, and build it again"
            )
    return archive


def read_model(path: Path) -> Archive:
    """Read an archive or a folder as TorchServe's loader does, whoever packed it.

    Raises:
        ArchiveError: TorchServe cannot serve it.
    """
    try:
        return _read(path)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(
            path, f"it cannot be read ({error.strerror or error})", STARTS_WITHOUT, "copy it again"
        ) from error
    except _BROKEN_ZIP as error:
        reason = f"it is not a readable zip file ({error})"
        raise ArchiveError(path, reason, NEVER_READY, "copy or build it again") from error


def _read(path: Path) -> Archive:
    root: Any = path if path.is_dir() else zipfile.Path(path)  # type: ignore[arg-type, unused-ignore]
    inner = list(path.iterdir()) if path.is_dir() else []
    root = inner[0] if len(inner) == 1 and inner[0].is_dir() else root
    if not (root / _MANIFEST).exists():
        raise ArchiveError(path, f"it has no {_MANIFEST}, so it is no model archive", NEVER_READY, "build it again")
    model = _read_manifest(path, _bytes(root / _MANIFEST))
    handler, version = _text(path, model, "handler"), _text(path, model, "modelVersion")
    names = frozenset(entry.name for entry in root.iterdir())
    source = f"{_module(handler)}.py"
    return Archive(
        path=path,
        model_name=_text(path, model, "modelName") or re.sub(r"[^A-Za-z0-9_]|^_", "_", path.name.removesuffix(".mar")),
        version="1.0" if model.get("modelVersion") is None else version,
        settings=_read_settings(path, root, _text(path, model, "configFile")),
        requirements_file=_text(path, model, "requirementsFile") or None,
        handler=handler,
        names=names,
        source=_bytes(root / source).decode("utf-8", errors="replace") if source in names else "",
    )


def _read_manifest(path: Path, content: bytes) -> Mapping[str, Any]:
    try:
        manifest = parse_json(content) if content.strip() else None
    except ValueError as error:
        raise ArchiveError(path, f"its {_MANIFEST} is not JSON ({error})", STARTS_WITHOUT, "build it again") from error
    model = manifest.get("model", {}) if isinstance(manifest, dict) else manifest
    if isinstance(manifest, dict) and isinstance(model, dict):
        return model
    effect = ENDS if model is None else STARTS_WITHOUT
    raise ArchiveError(path, f'its {_MANIFEST} has no "model" entry', effect, "build it again")


def _read_settings(path: Path, root: Any, file: str) -> Mapping[str, Any] | None:
    if not file:
        return None
    if not (root / file).exists():
        raise ArchiveError(path, f"its manifest names {file!r}, which is not in it", NEVER_READY, "build it again")
    try:
        settings = parse_yaml(_bytes(root / file))
    except ValueError as error:
        reason = f"its {file} is not YAML ({' '.join(str(error).split())})"
        raise ArchiveError(path, reason, NEVER_READY, "correct it and build again") from error
    if not isinstance(settings, dict):
        reason = f"its {file} is {'empty' if settings is None else repr(settings)}, not a mapping"
        raise ArchiveError(path, reason, ENDS, "write a setting, or build without --config-file")
    torchrun = settings.get("torchrun")
    for key in (*settings, *(torchrun if isinstance(torchrun, dict) else ())):
        if not isinstance(key, str):  # `on` is a truth value for YAML
            raise ArchiveError(path, f"its {file} has the key {key!r}", ENDS, "write it in quotes")
    return settings


def _module(handler: str) -> str:
    return handler.partition(":")[0].rpartition("/")[2].removesuffix(".py")


def _text(path: Path, model: Mapping[str, Any], key: str) -> str:
    value = model.get(key)
    if isinstance(value, dict | list):
        raise ArchiveError(path, f"{key} is {shown(value)}, not a text", STARTS_WITHOUT, "build it again")
    return "" if value is None else str(value)


def _bytes(file: Any) -> bytes:
    with file.open("rb") as stream:
        content: bytes = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{file.name} has more than {MAX_BYTES} bytes")
    return content
