"""The models a configuration loads, with the numbers that would really hold for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve.address import LARGEST_PORT
from ts_handlers.operate.torchserve.archives import MAX_JAVA_INT, Archive
from ts_handlers.operate.torchserve.config import ServerConfig, java_int
from ts_handlers.reading import parse_json

DEFAULT_BATCH_SIZE = 1
DEFAULT_MAX_BATCH_DELAY_MS = 100
DEFAULT_JOB_QUEUE_SIZE = 100
DEFAULT_TIMEOUT_S = 120
"""Either timeout where nothing sets it; a model-config.yaml that does not set one keeps others from doing so."""

MAX_WORKERS = 1024
"""More processes than any machine this was meant for runs; a larger number is a slip of the pen."""

NUMBERS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
"""What an entry of models= and a model-config.yaml may both set."""

MODEL_KEYS = ("defaultVersion", "marName", *NUMBERS, "runtimeType", "parallelLevel")
"""What an entry of models= may hold."""


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """One model that TorchServe starts.

    Attributes:
        name: Its name.
        version: Its version.
        workers: Workers TorchServe starts.
        startup_timeout_s: Seconds each may take to load.
    """

    name: str
    version: str
    workers: int
    startup_timeout_s: int

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class LoadedModel(ConfiguredModel):
    """One model that load_models names, and whose archive is there.

    Attributes:
        archive: Its archive.
        entry: Its entry of models=; empty where there is none.
        batch_size: Requests a worker takes at once.
        max_batch_delay_ms: Milliseconds a worker waits for its batch to fill.
        job_queue_size: Requests that may wait.
    """

    archive: Archive
    entry: Mapping[str, Any]
    batch_size: int
    max_batch_delay_ms: int
    job_queue_size: int


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


def load_entries(config: ServerConfig) -> list[tuple[str | None, str]]:
    """Return (name, file) of each of the first entries of load_models; the name is None where the archive's own holds."""
    text = config.values.get("load_models", "")
    if text.upper() == "ALL":
        return [(None, file) for file in (*config.store.archives, *config.store.broken) if file.endswith(".mar")]
    pairs = [entry.split("=", 1) for entry in text.split(",", MAX_ENTRIES)[:MAX_ENTRIES] if entry]
    return [(None, pair[0]) if len(pair) == 1 else (pair[0], pair[1]) for pair in pairs]


def loaded_models(config: ServerConfig) -> list[LoadedModel]:
    """Return the models whose archives are there, in the order they are loaded."""
    try:
        models = read_models(config.values.get("models", "{}"))
    except ValueError:
        models = {}
    found = []
    for name, file in load_entries(config):
        archive = config.store.archives.get(file)
        if archive is not None:
            entry = models.get(name or archive.model_name, {}).get(archive.version, {})
            found.append(_loaded(config, name or archive.model_name, archive, entry))
    return found


def served_models(config: ServerConfig) -> tuple[ConfiguredModel, ...]:
    """Return every model that a server with this configuration is to have: what is loaded, and what models= describes.

    Raises:
        ConfigError: There is none, or nothing says how many workers one has.
    """
    remedy = "write it with: ts-handlers configure"
    try:
        entries = read_models(config.values.get("models", "{}"))
    except ValueError as error:
        raise ConfigError(f"{config.path}: models= cannot be read ({error}); {remedy}") from error
    loaded = {(model.name, model.version): model for model in loaded_models(config)}
    described = {(name, version): entry for name, versions in entries.items() for version, entry in versions.items()}
    found = []
    for name, version in dict.fromkeys([*loaded, *described]):
        model = loaded.get((name, version))
        archive, entry = (model.archive, model.entry) if model else (None, described[name, version])
        workers = _num_workers(config, archive, entry)
        if workers is None:
            raise ConfigError(f"{config.path}: models= has no minWorkers above 0 for {name} {version}; {remedy}")
        found.append(ConfiguredModel(name, version, workers, _startup_timeout_s(config, archive, entry)))
    count = sum(model.workers for model in found)
    if not 0 < count <= MAX_WORKERS:
        raise ConfigError(f"{config.path} asks for {count} workers; 1 to {MAX_WORKERS} can be started; {remedy}")
    return tuple(found)


def worker_numbers(config: ServerConfig) -> range:
    """Return the numbers of the workers' sockets.

    Raises:
        ConfigError: As `served_models` does, or there are not so many.
    """
    first = config.port("initial_worker_port", 9000)
    count = sum(model.workers for model in served_models(config))
    if first + count > LARGEST_PORT + 1:
        raise ConfigError(
            f"{config.path}: initial_worker_port is {first}, which leaves no room for {count} workers; choose a smaller one"
        )
    return range(first, first + count)


def _loaded(config: ServerConfig, name: str, archive: Archive, entry: Mapping[str, Any]) -> LoadedModel:
    queue = config.number("job_queue_size", DEFAULT_JOB_QUEUE_SIZE)
    return LoadedModel(
        name=name,
        version=archive.version,
        workers=_num_workers(config, archive, entry) or default_workers(config),
        startup_timeout_s=_startup_timeout_s(config, archive, entry),
        archive=archive,
        entry=entry,
        batch_size=archive.setting("batchSize") or positive(entry, "batchSize") or DEFAULT_BATCH_SIZE,
        max_batch_delay_ms=(
            archive.setting("maxBatchDelay") or positive(entry, "maxBatchDelay") or DEFAULT_MAX_BATCH_DELAY_MS
        ),
        job_queue_size=archive.setting("jobQueueSize") or queue,
    )


def _num_workers(config: ServerConfig, archive: Archive | None, entry: Mapping[str, Any]) -> int | None:
    """Return the workers that the archive's own yaml, models= or the default asks for; None where nothing does."""
    if archive is not None:
        minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
        if minimum and maximum and maximum >= minimum:
            return minimum
    return positive(entry, "minWorkers") or config.number("default_workers_per_model", 0) or None


def _startup_timeout_s(config: ServerConfig, archive: Archive | None, entry: Mapping[str, Any]) -> int:
    if archive is not None and archive.settings is not None:
        return archive.setting("startupTimeout") or DEFAULT_TIMEOUT_S
    seconds = positive(entry, "startupTimeout") or config.number("default_startup_timeout", DEFAULT_TIMEOUT_S)
    return min(MAX_JAVA_INT, seconds)


def default_workers(config: ServerConfig) -> int:
    """Return the workers TorchServe starts where nothing says how many: one a GPU, else one a CPU it sees."""
    return config.number("default_workers_per_model", 0) or config.number("number_of_gpu", 0) or java_cpus(config)


def java_cpus(config: ServerConfig) -> int:
    """Return the CPUs Java counts: what vmargs says, else those of the whole machine at worst."""
    for word in reversed(config.values.get("vmargs", "").split()):
        _, option, number = word.partition("-XX:ActiveProcessorCount=")
        if option and (count := java_int(number)):
            return count
    return config.num_cpus


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
