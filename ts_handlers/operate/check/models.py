"""load_models=, models= and model_snapshot=: which models start, and which of the numbers given for them hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ts_handlers.operate.check.finding import Finding, Rule, at_most, found, judge
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.check.text import nearest
from ts_handlers.operate.torchserve import gson
from ts_handlers.operate.torchserve.handler import is_ours
from ts_handlers.operate.torchserve.models import (
    MAX_ENTRIES,
    MAX_WORKERS,
    MODEL_KEYS,
    NUMBERS,
    LoadedModel,
    default_workers,
    load_entries,
    positive,
    read_models,
)

_LONG_DELAY_MS = 100
_SNAPSHOT = "problem: model_snapshot"
_SNAPSHOT_NEEDS = ("defaultVersion", "marName", "minWorkers", "maxWorkers", "maxBatchDelay", "batchSize")
"""What Model.setModelState takes without asking whether it is there."""

_Case = tuple[Server, LoadedModel]


def check_models(server: Server) -> Iterator[Finding]:
    """Check what is loaded, and what is said about it."""
    if "model_snapshot" in server.values:
        yield from _snapshot(server)
    yield from at_most(_load_models(server))
    try:
        models = read_models(server.values["models"]) if "models" in server.values else {}
    except ValueError as error:
        yield found("problem: models", error, "TorchServe does not start; correct it, or write it with configure")
        return
    yield from at_most(_unmatched(server, models))
    for name, versions in models.items():
        for version, entry in versions.items():
            yield from _entry(f"models: {name} {version}", entry)
    for model in server.loaded:
        yield from judge(_RULES, (server, model), _facts(server, model))
    yield from _default_versions(server, models)


def _snapshot(server: Server) -> Iterator[Finding]:
    """Check a snapshot: TorchServe ends where one cannot be restored, and reads no model-config.yaml for it."""
    ignored = " and ".join(key for key in ("load_models", "models") if key in server.values)
    yield found(
        _SNAPSHOT if ignored else "warning: model_snapshot",
        f"a snapshot, beside {ignored}" if ignored else "a snapshot",
        "its models, workers and batches hold, and neither load_models nor any model-config.yaml; remove the line, and "
        "start TorchServe with --ncs so that no snapshot is written",
    )
    try:
        snapshot = gson.parse(server.values["model_snapshot"], range(1, 3))
        models = snapshot.get("models") if isinstance(snapshot, dict) else None
        count = gson.as_int(snapshot.get("modelCount", 0)) if models else 0
    except ValueError as error:
        yield found(_SNAPSHOT, error, "TorchServe does not start; take the snapshot as TorchServe wrote it")
        return
    entries = list(_snapshot_entries(models))
    if models and count <= 0:
        yield found(_SNAPSHOT, f"modelCount {count}", "no model is loaded; write how many there are")
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for _, entry in entries):
        text = (
            "it has no models by name and version: TorchServe does not start; take the snapshot as TorchServe wrote it"
        )
        yield found(_SNAPSHOT, f"{snapshot!r:.60}", text)
        return
    for label, entry in entries:
        yield from _snapshot_entry(server, f"{_SNAPSHOT}: {label}", entry)


def _snapshot_entries(models: object) -> Iterator[tuple[str, Any]]:
    for name, versions in models.items() if isinstance(models, dict) else ():
        if isinstance(versions, dict):
            yield from ((f"{name} {version}", entry) for version, entry in versions.items())
        else:
            yield name, versions


def _snapshot_entry(server: Server, about: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [name for name in _SNAPSHOT_NEEDS if entry.get(name) is None]
    if missing:
        yield found(about, f"no {' and no '.join(missing)}", "TorchServe does not start; write what is missing")
    for name in (*NUMBERS, "parallelLevel"):
        if entry.get(name) is not None and _number(entry[name]) is None:
            yield found(about, f"{name} {entry[name]!r}", "TorchServe does not start: it is no whole number; write one")
    file = str(entry.get("marName") or "")
    if server.store.exists and file and not server.store.has(file):
        yield found(about, file, f"TorchServe does not start: it is not in {server.store.folder}; copy it there")


def _number(value: object) -> int | None:
    try:
        return gson.as_int(value)
    except ValueError:
        return None


def _load_models(server: Server) -> Iterator[Finding]:
    text, store = server.values.get("load_models", ""), server.store
    if not text:
        if "models" in server.values and not server.is_written("load_models"):
            why = "models= only describes models: unless torchserve --models names them, none is loaded"
            yield found("warning: load_models", "not set", f"{why}; list their files, or write load_models=all")
    elif text.upper() == "ALL":
        others = [name for name in (*store.archives, *store.broken, *store.others) if not name.endswith(".mar")]
        if others:
            why = "folders and other archives there are loaded as models, too, in no order; list the .mar files"
            yield found("warning: load_models", f"all, with {', '.join(others[:3])} in the model store", why)
    elif text.count(",") > MAX_ENTRIES:
        yield found("problem: load_models", f"{text.count(',') + 1} entries", f"{MAX_ENTRIES} are checked; list fewer")
    for _, file in load_entries(server):
        yield from _load_entry(server, file)


def _load_entry(server: Server, file: str) -> Iterator[Finding]:
    store = server.store
    if ".." in file:
        text = "TorchServe takes no path with .. in it, and starts without it; write the file's name"
        yield found("problem: load_models", file, text)
    elif file != file.strip():
        why = "blanks belong to the file's name, so it is not found, and the server starts without it"
        yield found("problem: load_models", repr(file), f"{why}; separate files by a comma alone")
    elif "://" in file:
        yield found("hint: load_models", file, "what is behind a URL was not checked; put the .mar in the model store")
    elif store.exists and not store.has(file.rstrip("/").rpartition("/")[2]):
        why = f"it is not in {store.folder}: the server starts without it, with a warning in its log"
        there = ", ".join(store.archives) or "no models"
        yield found("problem: load_models", file, f"{why}; copy it there, or remove it; there are: {there}")


def _unmatched(server: Server, models: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    store = server.store
    if not store.archives or not server.values.get("load_models"):
        return
    labels = [model.label for model in server.loaded]
    files = [file for _, file in load_entries(server)]
    files += store.others if server.values["load_models"].upper() == "ALL" else ()
    unread = [file for file in files if "://" in file or (store.has(file) and file not in store.archives)]
    for label in (f"{name} {version}" for name, versions in models.items() for version in versions):
        if label in labels:
            continue
        if unread:
            why = f"no archive that was read has this name and version, and {', '.join(unread[:3])} was not read"
            yield found("hint: models", label, f"{why}; compare them with the manifest there")
            continue
        near = nearest(label, labels)
        remedy = f"write {near}" if near else f"there are: {', '.join(labels) or 'none'}"
        why = "no archive that is loaded has this name and version in its manifest, so the entry is for nothing"
        yield found("problem: models", label, f"{why}; {remedy}")


def _entry(key: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in entry.items():
        if name not in MODEL_KEYS:
            near = nearest(name, MODEL_KEYS)
            severity, remedy = ("problem", f"write {near}") if near else ("warning", "remove it")
            yield found(f"{severity}: {key}", name, f"TorchServe does not read it; {remedy}")
        elif name in NUMBERS and _number(value) is None:
            text = "it is no whole number, and TorchServe ends when it loads the model; write a whole number above 0"
            yield found(f"problem: {key}", f"{name} {value!r}", text)
        elif name in NUMBERS and positive(entry, name) is None:
            why = "TorchServe makes 100 ms of it" if name == "maxBatchDelay" else "TorchServe takes the default instead"
            yield found(f"problem: {key}", f"{name} {value!r}", f"{why}; write 1 or more")
    least, most = positive(entry, "minWorkers"), positive(entry, "maxWorkers")
    if least and most and most < least:
        text = f"TorchServe starts {least} all the same, and {most} after the first change of workers; make both equal"
        yield found(f"warning: {key}", f"minWorkers {least}, maxWorkers {most}", text)
    elif least and most and most > least:
        why = f"TorchServe never starts more than minWorkers, {least}, by itself"
        text = f"{why}; set minWorkers to what you want, or scale through the management API"
        yield found(f"hint: {key}", f"maxWorkers {most}", text)


def _is_async(model: LoadedModel) -> bool:
    """Whether requests go to the worker one by one, as they come."""
    return (model.archive.settings or {}).get("asyncCommunication") is True


def _lacks(model: LoadedModel, name: str) -> bool:
    return name not in model.entry and model.archive.setting(name) is None


def _facts(server: Server, model: LoadedModel) -> dict[str, object]:
    is_gpu = server.number("number_of_gpu", 0) > 0
    return {
        "label": f"models: {model.label}",
        "default": f"{default_workers(server)}, one for each {'GPU' if is_gpu else 'CPU'} it sees",
        "limit": "" if is_gpu else ": those of the node, where Java does not know the container's limit",
        "queue": max(2 * model.batch_size * model.workers, 1),
    }


_RULES: tuple[Rule[_Case], ...] = (
    (
        lambda case: case[1].workers > MAX_WORKERS and f"{case[1].workers} workers",
        "problem: {label}: no machine runs so many processes; ask for one a CPU at most",
    ),
    (
        lambda case: (
            0 < case[1].job_queue_size < case[1].batch_size
            and f"{case[1].job_queue_size}, with batches of {case[1].batch_size} of {case[1].label}"
        ),
        "warning: job_queue_size: a batch can never fill from what waits, and bursts are answered 503; write at least "
        "{queue}, two batches for each worker",
    ),
    (
        lambda case: (
            case[1].batch_size > 1
            and case[1].max_batch_delay_ms >= _LONG_DELAY_MS
            and not _is_async(case[1])
            and f"maxBatchDelay {case[1].max_batch_delay_ms} ms"
        ),
        "warning: {label}: a lone request waits that long for a batch to fill, and no other worker of the model can "
        "begin meanwhile; write 1: under load batches fill from the queue",
    ),
    (
        lambda case: _lacks(case[1], "batchSize") and is_ours(case[1].archive) and "no batchSize",
        "warning: {label}: TorchServe takes 1: requests that wait are not put together; write batchSize",
    ),
    (
        lambda case: (
            _lacks(case[1], "batchSize") and not is_ours(case[1].archive) and not _is_async(case[1]) and "no batchSize"
        ),
        "hint: {label}: TorchServe takes 1: requests that wait are not put together; write batchSize, if its handler "
        "takes several at once",
    ),
    (
        lambda case: (
            _lacks(case[1], "minWorkers")
            and not case[0].is_true("debug")
            and not case[0].number("default_workers_per_model", 0)
            and "no minWorkers, and no default_workers_per_model"
        ),
        "problem: {label}: TorchServe starts {default}{limit}; write minWorkers and maxWorkers",
    ),
)


def _default_versions(server: Server, models: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    if server.is_true("enable_model_api") and not server.is_written("default_workers_per_model"):
        text = "a model that is registered later gets one worker for each CPU TorchServe sees; write 1"
        yield found("hint: default_workers_per_model", "not set", text)
    if server.values.get("load_models", "").upper() == "ALL":
        if any(len(versions) > 1 for versions in models.values()):
            why = "which one is loaded first, and so is the default, is left to the file system"
            text = f"{why}; list the .mar files, the default version first"
            yield found("warning: load_models", "all, with several versions of a model", text)
        return
    seen: dict[str, str] = {}
    for model in server.loaded:
        first = seen.setdefault(model.name, model.version)
        if model.entry.get("defaultVersion") is True and first != model.version:
            why = f"at start the version that is loaded first, {first}, answers requests that name none"
            key = f"warning: models: {model.label}"
            yield found(key, "defaultVersion true", f"{why}; put its file first in load_models")
