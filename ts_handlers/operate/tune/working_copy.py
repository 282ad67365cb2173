"""Archives whose model-config.yaml leaves workers and batches to config.properties, and may fix the threads."""

from __future__ import annotations

import copy
import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ts_handlers.config import HandlerConfig
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.reading import parse_json, read_member

SERVER_KEYS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")
"""Keys of model-config.yaml that TorchServe prefers to config.properties."""

_MANIFEST = "MAR-INF/MANIFEST.json"
_HEADER = "# Rewritten by `ts-handlers tune`, from the archive's own file.\n"


def has_threads(archive: Archive) -> bool:
    """Say whether the archive's handler takes its threads from `handler.cpu`: all its settings are ts_handlers' own."""
    settings = (archive.settings or {}).get("handler")
    return isinstance(settings, dict) and set(settings) <= {field.name for field in fields(HandlerConfig)}


def fixed_threads(archive: Archive) -> int | None:
    """Return `handler.cpu.threads` of its model-config.yaml."""
    cpu = ((archive.settings or {}).get("handler") or {}).get("cpu") if has_threads(archive) else None
    threads = cpu.get("threads") if isinstance(cpu, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


def freed_settings(archive: Archive, threads: int | None) -> Mapping[str, Any] | None:
    """Return the model-config.yaml without what would override config.properties, and with `threads`.

    Args:
        archive: The archive.
        threads: `handler.cpu.threads` to be; None for none.
    """
    if archive.settings is None:
        return None
    settings = copy.deepcopy({key: value for key, value in archive.settings.items() if key not in SERVER_KEYS})
    if not has_threads(archive):
        return settings
    cpu = dict(settings["handler"].get("cpu") or {})
    cpu.pop("threads", None)
    if threads is not None:
        cpu["threads"] = threads
    settings["handler"].pop("cpu", None)
    if cpu:
        settings["handler"]["cpu"] = cpu
    return settings


def write_copy(archive: Archive, path: Path, settings: Mapping[str, Any] | None) -> None:
    """Write the archive with another model-config.yaml, or as it is if that is its own.

    Raises:
        OperatorError: The place cannot be written.
    """
    with replacing(path) as part:
        if settings == archive.settings:
            shutil.copyfile(archive.path, part)
        else:
            _rewrite(archive.path, part, settings)


def place_copy(archive: Archive, path: Path, settings: Mapping[str, Any] | None) -> None:
    """Make the archive available at `path` for a while: by a link if it needs no change."""
    if settings == archive.settings:
        path.symlink_to(archive.path.resolve())
    else:
        write_copy(archive, path, settings)


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _rewrite(source: Path, target: Path, settings: Mapping[str, Any] | None) -> None:
    text = _HEADER + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        config_name = parse_json(read_member(old, _MANIFEST))["model"]["configFile"]
        for entry in old.infolist():
            if entry.filename == config_name:
                new.writestr(entry, text)
            else:
                with old.open(entry) as reader, new.open(entry, "w") as writer:
                    shutil.copyfileobj(reader, writer, 2**20)
