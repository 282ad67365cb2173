"""The folders of `tune`: what `configure` chooses for an archive, the trials' model store, and the tuned folder."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import NO_REPORT, read_reports
from ts_handlers.operate.memory import MIB, worker_mb
from ts_handlers.operate.replacing import finished_name
from ts_handlers.operate.torchserve.archives import Archive, read_archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME
from ts_handlers.operate.tune.report import REPORT_NAME
from ts_handlers.operate.tune.results import RESULTS_NAME
from ts_handlers.operate.tune.space import Setting
from ts_handlers.operate.tune.trial import read_decision, write_config
from ts_handlers.operate.tune.working_copy import fixed_threads, freed_settings, place_copy, write_copy


def check_output(output: Path, archive: Archive) -> None:
    """Check that the folder holds nothing but what `tune` wrote: `configure` would serve every archive in it.

    Raises:
        OperatorError: It holds something else, or is no folder.
    """
    if output.exists() and not output.is_dir():
        raise OperatorError(f"{output} is no folder; choose another --output")
    if not output.exists():
        return
    names = {finished_name(path.name) for path in output.iterdir()}
    ours = {archive.path.name, _build_report(archive).name, CONFIG_NAME, METRICS_NAME, RESULTS_NAME, REPORT_NAME, "run"}
    strange = sorted(names - ours) or (sorted(names) if names and RESULTS_NAME not in names else [])
    if strange:
        raise OperatorError(
            f"{output} holds what tune did not write ({', '.join(strange[:3])}), which --force does not overwrite either; "
            "choose a new or empty folder"
        )
    if (output / archive.path.name).resolve() == archive.path.resolve():
        raise OperatorError(f"{archive.path} lies in the output folder; tune the original, or choose another --output")


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of an archive before anything is measured.

    Attributes:
        default: What `configure` writes for the archive as it is, and the threads its workers take then.
        worker_bytes: Memory a worker takes: what its build measured, else 400 MiB (Python, torch) and the archive twice
            (the file's bytes and the engine's own copy).
    """

    default: Setting
    worker_bytes: int


def read_prior(archive: Archive, budget: CpuBudget) -> Prior:
    """Ask `configure` and the build report beside the archive."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        store = Path(folder)
        (store / archive.path.name).symlink_to(archive.path.resolve())
        _link_report(archive, store)
        write_config(store, None, store / CONFIG_NAME)
        workers, batch_size, delay_ms = read_decision(store / CONFIG_NAME)
        report = read_reports(store, [archive]).get((archive.model_name, archive.version), NO_REPORT)
    threads = fixed_threads(archive) or cpu_share(budget, workers).threads
    unmeasured = 400 * MIB + 2 * archive.path.stat().st_size
    return Prior(
        default=Setting(workers, threads, batch_size, delay_ms),
        worker_bytes=unmeasured if report.rss_mb is None else int(worker_mb(report.rss_mb) * MIB),
    )


def place_archive(archive: Archive, folder: Path) -> Archive:
    """Put the archive, free to be configured, into a model store of its own."""
    store = folder / "store"
    store.mkdir()
    path = store / archive.path.name
    place_copy(archive, path, freed_settings(archive, None))
    _link_report(archive, store)
    return read_archive(path)


def write_output(output: Path, archive: Archive, choice: Setting, budget: CpuBudget) -> None:
    """Write the archive, its build report and a configuration with what was chosen.

    The archive is changed only where its model-config.yaml would override config.properties, or where the threads are
    not what a worker would take of the budget.
    """
    threads = None if choice.threads == cpu_share(budget, choice.workers).threads else choice.threads
    write_copy(archive, output / archive.path.name, freed_settings(archive, threads))
    report = _build_report(archive)
    if report.is_file():
        shutil.copyfile(report, output / report.name)
    write_config(output, choice, output / CONFIG_NAME)


def _link_report(archive: Archive, store: Path) -> None:
    report = _build_report(archive)
    if report.is_file():
        (store / report.name).symlink_to(report.resolve())


def _build_report(archive: Archive) -> Path:
    return archive.path.with_suffix(".build.json")
