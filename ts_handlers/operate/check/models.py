"""load_models=, models= and model_snapshot=: which models start, and which of the numbers given for them hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ts_handlers.operate.check.finding import Finding, Rules, found, judge
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

_Models = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What models= says, by name and version."""


def check_models(server: Server) -> Iterator[Finding]:
    """Check what is loaded, and what is said about it."""
    if "model_snapshot" in server.values:
        yield from _snapshot(server)
    there = ", ".join(server.store.archives) or "no models"
    for _, file in load_entries(server):
        yield from islice(judge(_FILE_RULES, server, file, there=there), 1)
    try:
        models = read_models(server.values.get("models", "{}"))
    except ValueError as error:
        yield from judge(_RULES, server, {})
        yield found("problem: models", error, "TorchServe does not start; correct it, or write it with configure")
        return
    yield from judge(_RULES, server, models)
    yield from _unmatched(server, models)
    for name, versions in models.items():
        for version, entry in versions.items():
            yield from _entry(f"models: {name} {version}", entry)
    first = {model.name: model.version for model in reversed(server.loaded)}
    for model in server.loaded:
        yield from judge(_MODEL_RULES, server, model, first=first[model.name], **_facts(server, model))


def _snapshot(server: Server) -> Iterator[Finding]:
    """Check a snapshot: TorchServe ends where one cannot be restored, and reads no model-config.yaml for it."""
    ignored = " and ".join(key for key in ("load_models", "models") if key in server.values)
    yield found(
        _SNAPSHOT if ignored else "warning: model_snapshot",
        f"a snapshot, beside {ignored}" if ignored else "a snapshot",
        "its models, workers and batches hold, and neither load_models nor any model-config.yaml; remove the line, and "
        "start TorchServe with --ncs so that no snapshot is written",
    )
    remedy = "TorchServe does not start; take the snapshot as TorchServe wrote it"
    try:
        snapshot = gson.parse(server.values["model_snapshot"], range(1, 3))
        tables = snapshot["models"]
        count = gson.as_int(snapshot.get("modelCount", 0)) if tables else 1
        models = {name: {version: {**entry} for version, entry in table.items()} for name, table in tables.items()}
    except ValueError as error:
        yield found(_SNAPSHOT, error, remedy)
        return
    except (AttributeError, LookupError, TypeError):  # something in it is no object
        yield found(_SNAPSHOT, f"{snapshot!r:.60}", f"it has no models by name and version: {remedy}")
        return
    if count <= 0:
        yield found(_SNAPSHOT, f"modelCount {count}", "no model is loaded; write how many there are")
    for name, versions in models.items():
        for version, entry in versions.items():
            yield from _snapshot_entry(server, f"{_SNAPSHOT}: {name} {version}", entry)


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


_FILE_RULES: Rules[[Server, str]] = {
    "problem: load_models: TorchServe takes no path with .. in it, and starts without it; write the file's name": (
        lambda _, file: ".." in file and file
    ),
    "problem: load_models: blanks belong to the file's name, so it is not found, and the server starts without it; "
    "separate files by a comma alone": lambda _, file: file != file.strip() and repr(file),
    "hint: load_models: what is behind a URL was not checked; put the .mar in the model store": (
        lambda _, file: "://" in file and file
    ),
    "problem: load_models: it is not in {0.store.folder}: the server starts without it, with a warning in its log; copy "
    "it there, or remove it; there are: {there}": lambda server, file: (
        server.store.exists and not server.store.has(file.rstrip("/").rpartition("/")[2]) and file
    ),
}
"""For each file of load_models; the first of them that is true is said."""


def _loads_all(server: Server) -> bool:
    return server.values.get("load_models", "").upper() == "ALL"


def _others(server: Server, _: _Models) -> str | bool:
    store = server.store
    others = [name for name in (*store.archives, *store.broken, *store.others) if not name.endswith(".mar")]
    return _loads_all(server) and bool(others) and f"all, with {', '.join(others[:3])} in the model store"


_RULES: Rules[[Server, _Models]] = {
    "warning: load_models: models= only describes models: unless torchserve --models names them, none is loaded; list "
    "their files, or write load_models=all": lambda server, _: (
        "models" in server.values and not server.is_written("load_models") and "not set"
    ),
    "warning: load_models: folders and other archives there are loaded as models, too, in no order; list the .mar "
    "files": _others,
    f"problem: load_models: {MAX_ENTRIES} are checked; list fewer": lambda server, _: (
        (count := server.values.get("load_models", "").count(",")) > MAX_ENTRIES and f"{count + 1} entries"
    ),
    "hint: default_workers_per_model: a model that is registered later gets one worker for each CPU TorchServe sees; "
    "write 1": lambda server, _: (
        server.is_true("enable_model_api") and not server.is_written("default_workers_per_model")
    ),
    "warning: load_models: which one is loaded first, and so is the default, is left to the file system; list the .mar "
    "files, the default version first": lambda server, models: (
        _loads_all(server)
        and any(len(versions) > 1 for versions in models.values())
        and "all, with several versions of a model"
    ),
}


def _unmatched(server: Server, models: _Models) -> Iterator[Finding]:
    """Find entries of models= that no archive takes."""
    store = server.store
    if not store.archives or not server.values.get("load_models"):
        return
    labels = [model.label for model in server.loaded]
    files = [*(file for _, file in load_entries(server)), *(store.others if _loads_all(server) else ())]
    unread = [file for file in files if "://" in file or (store.has(file) and file not in store.archives)]
    for label in (f"{name} {version}" for name, versions in models.items() for version in versions):
        if label not in labels and unread:
            why = f"no archive that was read has this name and version, and {', '.join(unread[:3])} was not read"
            yield found("hint: models", label, f"{why}; compare them with the manifest there")
        elif label not in labels:
            near = nearest(label, labels)
            remedy = f"write {near}" if near else f"there are: {', '.join(labels) or 'none'}"
            why = "no archive that is loaded has this name and version in its manifest, so the entry is for nothing"
            yield found("problem: models", label, f"{why}; {remedy}")


def _entry(key: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in entry.items():
        number = _number(value)
        if name not in MODEL_KEYS:
            near = nearest(name, MODEL_KEYS)
            severity, remedy = ("problem", f"write {near}") if near else ("warning", "remove it")
            yield found(f"{severity}: {key}", name, f"TorchServe does not read it; {remedy}")
        elif name in NUMBERS and number is None:
            text = "it is no whole number, and TorchServe ends when it loads the model; write a whole number above 0"
            yield found(f"problem: {key}", f"{name} {value!r}", text)
        elif name in NUMBERS and number is not None and number <= 0:
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
        "key": f"models: {model.label}",
        "default": f"{default_workers(server)}, one for each {'GPU' if is_gpu else 'CPU'} it sees",
        "limit": "" if is_gpu else ": those of the node, where Java does not know the container's limit",
        "queue": max(2 * model.batch_size * model.workers, 1),
    }


_MODEL_RULES: Rules[[Server, LoadedModel]] = {
    "problem: {key}: no machine runs so many processes; ask for one a CPU at most": lambda _, model: (
        model.workers > MAX_WORKERS and f"{model.workers} workers"
    ),
    "warning: job_queue_size: a batch can never fill from what waits, and bursts are answered 503; write at least {queue}, "
    "two batches for each worker": lambda _, model: (
        0 < model.job_queue_size < model.batch_size
        and f"{model.job_queue_size}, with batches of {model.batch_size} of {model.label}"
    ),
    "warning: {key}: a lone request waits that long for a batch to fill, and no other worker of the model can begin "
    "meanwhile; write 1: under load batches fill from the queue": lambda _, model: (
        model.batch_size > 1
        and model.max_batch_delay_ms >= _LONG_DELAY_MS
        and not _is_async(model)
        and f"maxBatchDelay {model.max_batch_delay_ms} ms"
    ),
    "warning: {key}: TorchServe takes 1: requests that wait are not put together; write batchSize": lambda _, model: (
        _lacks(model, "batchSize") and is_ours(model.archive) and "no batchSize"
    ),
    "hint: {key}: TorchServe takes 1: requests that wait are not put together; write batchSize, if its handler takes "
    "several at once": lambda _, model: (
        _lacks(model, "batchSize") and not is_ours(model.archive) and not _is_async(model) and "no batchSize"
    ),
    "problem: {key}: TorchServe starts {default}{limit}; write minWorkers and maxWorkers": lambda server, model: (
        _lacks(model, "minWorkers")
        and not server.is_true("debug")
        and not server.number("default_workers_per_model", 0)
        and "no minWorkers, and no default_workers_per_model"
    ),
    "warning: {key}: at start the version that is loaded first, {first}, answers requests that name none; put its file "
    "first in load_models": lambda server, model: (
        not _loads_all(server)
        and model.entry.get("defaultVersion") is True
        and model.version != next(one.version for one in server.loaded if one.name == model.name)
        and "defaultVersion true"
    ),
}
