"""load_models= and models=: which models start, and which of the numbers given for them hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ts_handlers.operate.torchserve.models import (
    MAX_ENTRIES,
    MAX_WORKERS,
    MODEL_KEYS,
    NUMBERS,
    LoadedModel,
    default_workers,
    load_entries,
    loaded_models,
    positive,
    read_models,
)
from ts_handlers.operate.traps.finding import Finding, at_most
from ts_handlers.operate.traps.keys import nearest
from ts_handlers.operate.traps.subject import Subject

_ENVELOPES_OF_ONE = ("kserve", "kservev2")
_LONG_DELAY_MS = 100


def check_models(subject: Subject) -> Iterator[Finding]:
    """Check what is loaded, and what is said about it."""
    yield from at_most(_load_models(subject), "load_models", "files that cannot be loaded as they are named")
    try:
        models = read_models(subject.values.get("models", "{}"))
    except ValueError as error:
        yield Finding(
            "problem", "models", f"not readable ({error})", "TorchServe does not start", "write it with configure"
        )
        return
    loaded = loaded_models(subject)
    yield from at_most(_match(subject, models, loaded), "models", "entries that are for nothing")
    yield from at_most(_entries(models), "models", "settings that do not hold")
    yield from at_most(
        (found for model in loaded for found in _numbers(subject, model)), "models", "numbers that do not fit"
    )
    yield from _defaults(subject, models, loaded)
    yield from _envelope(subject, loaded)


def _load_models(subject: Subject) -> Iterator[Finding]:
    text = subject.values.get("load_models", "")
    if not text:
        if "models" in subject.values:
            yield Finding(
                "warning",
                "load_models",
                "not set",
                "models= only describes models: unless torchserve --models names them, none is loaded",
                "list their files, or write load_models=all",
            )
        return
    if text.upper() == "ALL":
        if subject.store.others:
            yield Finding(
                "warning",
                "load_models",
                f"all, with {', '.join(subject.store.others[:3])} in the model store",
                "folders and other archives there are loaded as models, too, in no order",
                "list the .mar files",
            )
        return
    if text.count(",") > MAX_ENTRIES:
        yield Finding(
            "problem",
            "load_models",
            f"{text.count(',') + 1} entries",
            f"the first {MAX_ENTRIES} are checked",
            "list fewer",
        )
    for _, file in load_entries(subject):
        yield from _load_entry(subject, file)


def _load_entry(subject: Subject, file: str) -> Iterator[Finding]:
    store = subject.store
    if file != file.strip():
        yield Finding(
            "problem",
            "load_models",
            repr(file),
            "blanks belong to the file's name, so it is not found, and the server starts without it",
            "separate files by a comma alone",
        )
    elif "://" in file:
        yield Finding(
            "hint", "load_models", file, "what is behind a URL was not checked", "put the .mar in the model store"
        )
    elif store.exists and file not in store.archives and file not in store.broken and file not in store.others:
        yield Finding(
            "problem",
            "load_models",
            file,
            f"it is not in {store.folder}; the server starts without it, with a warning in its log",
            f"copy it there, or remove it; there are: {', '.join(store.archives) or 'no .mar files'}",
        )


def _match(
    subject: Subject, models: Mapping[str, Mapping[str, Any]], loaded: Sequence[LoadedModel]
) -> Iterator[Finding]:
    known = {(model.name, model.version) for model in loaded}
    if not subject.store.archives or not subject.values.get("load_models"):
        return
    unread = _unread(subject)
    for name, versions in models.items():
        for version in versions:
            if (name, version) in known:
                continue
            if unread:
                yield Finding(
                    "hint",
                    "models",
                    f"{name} {version}",
                    f"no archive that was read has this name and version, and {', '.join(unread[:3])} was not read",
                    "compare them with the manifest there",
                )
                continue
            labels = [model.label for model in loaded]
            near = nearest(f"{name} {version}", labels)
            yield Finding(
                "problem",
                "models",
                f"{name} {version}",
                "no archive that is loaded has this name and version in its manifest, so the entry is for nothing",
                f"write {near}" if near else f"there are: {', '.join(labels) or 'none'}",
            )


def _unread(subject: Subject) -> list[str]:
    """Return what is loaded without having been read: its name and version are unknown."""
    store = subject.store
    files = [file for _, file in load_entries(subject)]
    if subject.values["load_models"].upper() == "ALL":
        files += store.others
    return [file for file in files if "://" in file or file in store.others or file in store.broken]


def _entries(models: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    for name, versions in models.items():
        for version, entry in versions.items():
            yield from _entry(f"{name} {version}", entry)


def _entry(label: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    for key in entry:
        if key not in MODEL_KEYS:
            near = nearest(key, MODEL_KEYS)
            yield Finding(
                "problem" if near else "warning",
                f"models: {label}",
                key,
                "TorchServe does not read it",
                f"write {near}" if near else "remove it",
            )
    for key in NUMBERS:
        if key in entry and positive(entry, key) is None:
            yield _no_number(label, key, entry[key])
    least, most = positive(entry, "minWorkers"), positive(entry, "maxWorkers")
    if least and most and most < least:
        yield Finding(
            "warning",
            f"models: {label}",
            f"minWorkers {least}, maxWorkers {most}",
            f"TorchServe starts {least} all the same, and {most} after the first change of workers",
            "make maxWorkers the larger one, or both equal",
        )
    elif least and most and most > least:
        yield Finding(
            "hint",
            f"models: {label}",
            f"maxWorkers {most}",
            f"TorchServe never starts more than minWorkers, {least}, by itself",
            "set minWorkers to what you want, or scale through the management API",
        )


def _no_number(label: str, key: str, value: object) -> Finding:
    if key == "maxBatchDelay" and value in (0, "0"):
        return Finding(
            "problem",
            f"models: {label}",
            "maxBatchDelay 0",
            "TorchServe makes 100 ms of it",
            "write 1, the least it takes",
        )
    if isinstance(value, bool) or value is None or (isinstance(value, str) and not value.lstrip("-").isdigit()):
        return Finding(
            "problem",
            f"models: {label}",
            f"{key} {value!r}",
            "it is no number: TorchServe does not start, or takes the default",
            "write a whole number above 0",
        )
    return Finding(
        "problem", f"models: {label}", f"{key} {value!r}", "TorchServe takes the default instead", "write 1 or more"
    )


def _numbers(subject: Subject, model: LoadedModel) -> Iterator[Finding]:
    key = f"models: {model.label}"
    if model.workers > MAX_WORKERS:
        yield Finding(
            "problem", key, f"{model.workers} workers", "no machine runs so many processes", "ask for one a CPU at most"
        )
    if model.job_queue_size < model.batch_size:
        yield Finding(
            "warning",
            "job_queue_size",
            f"{model.job_queue_size}, with batches of {model.batch_size} of {model.label}",
            "a batch can never fill from what waits, and bursts are answered 503",
            f"write at least {2 * model.batch_size * model.workers}, two batches for each worker",
        )
    if model.batch_size > 1 and model.max_batch_delay_ms >= _LONG_DELAY_MS:
        yield Finding(
            "warning",
            key,
            f"maxBatchDelay {model.max_batch_delay_ms} ms",
            "a lone request waits that long for a batch to fill, and no other worker of the model can begin meanwhile",
            "write 1: under load batches fill from the queue",
        )
    has_batch = "batchSize" in model.entry or model.archive.setting("batchSize")
    if not has_batch:
        yield Finding(
            "warning",
            key,
            "no batchSize",
            "TorchServe takes 1: requests that wait are not put together",
            "write batchSize",
        )
    has_workers = positive(model.entry, "minWorkers") or model.archive.setting("minWorkers")
    if not has_workers and not subject.number("default_workers_per_model", 0):
        yield Finding(
            "problem",
            key,
            "no minWorkers, and no default_workers_per_model",
            f"TorchServe starts one worker for each CPU (or GPU) it sees, here {default_workers(subject)}: those of the "
            "node, where Java does not know the container's limit",
            "write minWorkers and maxWorkers",
        )


def _defaults(
    subject: Subject, models: Mapping[str, Mapping[str, Any]], loaded: Sequence[LoadedModel]
) -> Iterator[Finding]:
    if "default_workers_per_model" not in subject.values:
        yield Finding(
            "hint",
            "default_workers_per_model",
            "not set",
            "a model that is registered later gets one worker for each CPU TorchServe sees",
            "write default_workers_per_model=1",
        )
    seen: dict[str, str] = {}
    is_ordered = subject.values.get("load_models", "").upper() != "ALL"
    for model in loaded:
        first = seen.setdefault(model.name, model.version)
        wants = model.entry.get("defaultVersion") is True
        if wants and first != model.version and is_ordered:
            yield Finding(
                "warning",
                f"models: {model.label}",
                "defaultVersion true",
                f"at start the version that is loaded first, {first}, answers requests that name none",
                "put its file first in load_models",
            )
    if not is_ordered and any(len(versions) > 1 for versions in models.values()):
        yield Finding(
            "warning",
            "load_models",
            "all, with several versions of a model",
            "which one is loaded first, and so is the default, is left to the file system",
            "list the .mar files, the default version first",
        )


def _envelope(subject: Subject, loaded: Sequence[LoadedModel]) -> Iterator[Finding]:
    envelope = subject.values.get("service_envelope")
    if not envelope:
        return
    batched = [model.label for model in loaded if model.batch_size > 1]
    if envelope.lower() in _ENVELOPES_OF_ONE and batched:
        yield Finding(
            "problem",
            "service_envelope",
            f"{envelope}, with batches of {', '.join(batched)}",
            "it reads the first request of a batch only, and the whole batch is answered 503",
            "remove the line (ts_handlers read KServe bodies themselves), or set batchSize to 1",
        )
    else:
        yield Finding(
            "warning",
            "service_envelope",
            envelope,
            "it unpacks bodies of every model before the handler sees them, which ts_handlers do themselves",
            "remove the line",
        )
