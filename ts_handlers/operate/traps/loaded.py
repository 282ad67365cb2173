"""The models a configuration loads, with the numbers that would really hold for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ts_handlers.operate.archives import Archive
from ts_handlers.operate.traps.subject import Subject, java_int
from ts_handlers.reading import parse_json

DEFAULT_BATCH_SIZE = 1
DEFAULT_MAX_BATCH_DELAY_MS = 100
DEFAULT_JOB_QUEUE_SIZE = 100

NUMBERS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
"""What an entry of models= and a model-config.yaml may both set."""

MODEL_KEYS = ("defaultVersion", "marName", *NUMBERS, "runtimeType", "parallelLevel")
"""What an entry of models= may hold."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One model that load_models names.

    Attributes:
        name: Its name.
        version: Its version.
        archive: Its archive.
        entry: Its entry of models=; empty where there is none.
        workers: Workers TorchServe starts.
        batch_size: Requests a worker takes at once.
        max_batch_delay_ms: Milliseconds a worker waits for its batch to fill.
        job_queue_size: Requests that may wait.
    """

    name: str
    version: str
    archive: Archive
    entry: Mapping[str, Any]
    workers: int
    batch_size: int
    max_batch_delay_ms: int
    job_queue_size: int

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


def read_models(text: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Read models= as TorchServe does.

    Raises:
        ValueError: It is no JSON object of objects of objects.
    """
    models = parse_json(text, any_number=True)  # of what TorchServe makes of them, findings tell
    if not _is_table(models) or not all(map(_is_table, models.values())):
        raise ValueError("an object of versions is expected for each name")
    for name, versions in models.items():
        if not all(isinstance(entry, dict) for entry in versions.values()):
            raise ValueError(f"{name} has a version that is no object")
    return models  # type: ignore[no-any-return]  # it was checked above


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


MAX_ENTRIES = 1000
"""Entries of load_models that are looked at; each is a model with processes of its own."""


def load_entries(subject: Subject) -> list[tuple[str | None, str]]:
    """Return (name, file) of each of the first entries of load_models; the name is None where the archive's own holds."""
    text = subject.values.get("load_models", "")
    if text.upper() == "ALL":
        return [(None, file) for file in (*subject.store.archives, *subject.store.broken) if file.endswith(".mar")]
    pairs = [entry.split("=", 1) for entry in text.split(",", MAX_ENTRIES)[:MAX_ENTRIES] if entry]
    return [(None, pair[0]) if len(pair) == 1 else (pair[0], pair[1]) for pair in pairs]


def loaded_models(subject: Subject) -> list[LoadedModel]:
    """Return the models whose archives are there, in the order they are loaded."""
    try:
        models = read_models(subject.values.get("models", "{}"))
    except ValueError:
        models = {}
    found = []
    for name, file in load_entries(subject):
        archive = subject.store.archives.get(file)
        if archive is not None:
            entry = models.get(name or archive.model_name, {}).get(archive.version, {})
            found.append(_loaded(subject, name or archive.model_name, archive, entry))
    return found


def _loaded(subject: Subject, name: str, archive: Archive, entry: Mapping[str, Any]) -> LoadedModel:
    minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
    is_fixed = bool(minimum and maximum and maximum >= minimum)
    workers = minimum if is_fixed and minimum else positive(entry, "minWorkers") or default_workers(subject)
    queue = subject.number("job_queue_size", DEFAULT_JOB_QUEUE_SIZE)
    return LoadedModel(
        name=name,
        version=archive.version,
        archive=archive,
        entry=entry,
        workers=workers,
        batch_size=archive.setting("batchSize") or positive(entry, "batchSize") or DEFAULT_BATCH_SIZE,
        max_batch_delay_ms=(
            archive.setting("maxBatchDelay") or positive(entry, "maxBatchDelay") or DEFAULT_MAX_BATCH_DELAY_MS
        ),
        job_queue_size=archive.setting("jobQueueSize") or queue,
    )


def default_workers(subject: Subject) -> int:
    """Return the workers TorchServe starts where nothing says how many: one a GPU, else one a CPU it sees."""
    return subject.number("default_workers_per_model", 0) or subject.number("number_of_gpu", 0) or java_cpus(subject)


def java_cpus(subject: Subject) -> int:
    """Return the CPUs Java counts: what vmargs says, else those of the whole machine at worst."""
    for word in reversed(subject.values.get("vmargs", "").split()):
        _, option, number = word.partition("-XX:ActiveProcessorCount=")
        if option and (count := java_int(number)):
            return count
    return subject.machine.num_node_cpus


def positive(entry: Mapping[str, Any], key: str) -> int | None:
    """Read a number of models= as TorchServe does: zero and below count as not there."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None
