"""The archive that is tuned: what `configure` chooses for it, and copies whose settings are config.properties' alone."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ts_handlers.build.report import SUFFIX, BuildReport
from ts_handlers.config.reading import parse_json, read_member
from ts_handlers.config.sections import HandlerConfig
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.configure import command as configure
from ts_handlers.operate.memory import MIB, worker_mb
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.archives import Archive, read_archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME
from ts_handlers.operate.tune.results import Setting

_SERVER_KEYS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")
"""Keys of model-config.yaml that TorchServe prefers to config.properties."""

_MANIFEST = "MAR-INF/MANIFEST.json"
_HEADER = "# Rewritten by `ts-handlers tune`, from the archive's own file.\n"


def read_default(archive: Archive, budget: CpuBudget) -> tuple[Setting, int]:
    """Return what `configure` writes for the archive as it is, and the bytes of memory that a worker takes.

    The memory is what its build measured, else 400 MiB (Python, torch) and the archive twice (the file's bytes and the
    engine's own copy).
    """
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        store = Path(folder)
        _place(archive, store, archive.settings)
        write_config(store, None, store / CONFIG_NAME)
        workers, batch_size, delay_ms = read_decision(store / CONFIG_NAME)
        rss_mb = read_reports(store, [archive]).get((archive.model_name, archive.version), BuildReport()).rss_mb
    threads = fixed_threads(archive) or cpu_share(budget, workers).threads
    worker_bytes = 400 * MIB + 2 * archive.path.stat().st_size if rss_mb is None else int(worker_mb(rss_mb) * MIB)
    return Setting(workers, threads, batch_size, delay_ms), worker_bytes


def has_threads(archive: Archive) -> bool:
    """Say whether the archive's handler takes its threads from `handler.cpu`: all its settings are ts_handlers' own."""
    settings = (archive.settings or {}).get("handler")
    return isinstance(settings, dict) and set(settings) <= {field.name for field in fields(HandlerConfig)}


def fixed_threads(archive: Archive) -> int | None:
    """Return `handler.cpu.threads` of its model-config.yaml."""
    cpu = archive.settings["handler"].get("cpu") if archive.settings and has_threads(archive) else None
    threads = cpu.get("threads") if isinstance(cpu, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


def place_archive(archive: Archive, folder: Path) -> Archive:
    """Put the archive, free to be configured, into a new folder."""
    folder.mkdir()
    return read_archive(_place(archive, folder, _freed_settings(archive, None)))


def write_output(output: Path, archive: Archive, choice: Setting, budget: CpuBudget) -> None:
    """Write the archive, its build report and a configuration with what was chosen.

    The archive is changed only where its model-config.yaml would override config.properties, or where the threads are
    not what a worker would take of the budget.

    Raises:
        OperatorError: The folder cannot be written.
    """
    threads = None if choice.threads == cpu_share(budget, choice.workers).threads else choice.threads
    _place(archive, output, _freed_settings(archive, threads), is_copied=True)
    write_config(output, choice, output / CONFIG_NAME)


def build_report(archive: Archive) -> Path:
    """Return where the report of its build is, if there is one."""
    return archive.path.with_suffix(SUFFIX)


def write_config(store: Path, setting: Setting | None, config: Path, options: Sequence[str] = ()) -> None:
    """Run `ts-handlers configure` on a folder of one archive.

    Args:
        store: The folder.
        setting: What it is to decide; None for its own decision.
        config: The config.properties to write.
        options: More options.

    Raises:
        OperatorError: Something in the folder or the options overrides the setting.
    """
    words = [str(store), "--output", str(config), "--force", *options]
    if setting is not None:
        words += ["--workers", str(setting.workers), "--batch-size", str(setting.batch_size)]
        words += ["--max-batch-delay-ms", str(setting.max_batch_delay_ms)]
    parser = argparse.ArgumentParser()
    configure.add_arguments(parser)
    with contextlib.redirect_stdout(io.StringIO()):  # its report is about a folder that does not last
        configure.run(parser.parse_args(words))
    if setting is None:
        return
    workers, batch_size, delay = read_decision(config)
    if (workers, batch_size, delay) != (setting.workers, setting.batch_size, setting.max_batch_delay_ms):
        raise OperatorError(
            f"configure wrote {workers} workers, batches of {batch_size} and a delay of {delay} ms where "
            f"{setting.describe()} was asked for; remove what overrides it from the archive's model-config.yaml"
        )


def read_decision(config: Path) -> tuple[int, int, int]:
    """Return (workers, batch size, batch delay in ms) of the only model of a config.properties."""
    values = properties.parse(config.read_text(encoding=properties.ENCODING))
    ((versions),) = parse_json(values["models"]).values()
    ((model),) = versions.values()
    return int(model["minWorkers"]), int(model["batchSize"]), int(model["maxBatchDelay"])


def _freed_settings(archive: Archive, threads: int | None) -> Mapping[str, Any] | None:
    """Return the model-config.yaml without what would override config.properties, and with `handler.cpu.threads`."""
    if archive.settings is None:
        return None
    settings = {key: value for key, value in archive.settings.items() if key not in _SERVER_KEYS}
    if has_threads(archive):
        handler = dict(settings["handler"])
        cpu = {key: value for key, value in (handler.pop("cpu", None) or {}).items() if key != "threads"}
        cpu |= {} if threads is None else {"threads": threads}
        settings["handler"] = {**handler, **({"cpu": cpu} if cpu else {})}
    return settings


def _place(archive: Archive, folder: Path, settings: Mapping[str, Any] | None, *, is_copied: bool = False) -> Path:
    """Put the archive with this model-config.yaml, and the report of its build, into a folder.

    Args:
        archive: The archive.
        folder: The folder.
        settings: The model-config.yaml.
        is_copied: Whether to copy what does not change; else it is linked to.

    Returns:
        The archive there.
    """
    for file in (archive.path, build_report(archive)):
        path = folder / file.name
        if file == archive.path and settings != archive.settings:
            _write_changed(archive, path, settings)
        elif file.is_file() and is_copied:
            with replacing(path) as part:
                shutil.copyfile(file, part)
        elif file.is_file():
            path.symlink_to(file.resolve())
    return folder / archive.path.name


def _write_changed(archive: Archive, path: Path, settings: Mapping[str, Any] | None) -> None:
    text = _HEADER + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    with replacing(path) as part, zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(part, "w") as new:
        config_name = parse_json(read_member(old, _MANIFEST))["model"]["configFile"]
        for entry in old.infolist():
            if entry.filename == config_name:
                new.writestr(entry, text)
            else:
                with old.open(entry) as reader, new.open(entry, "w") as writer:
                    shutil.copyfileobj(reader, writer, 2**20)
