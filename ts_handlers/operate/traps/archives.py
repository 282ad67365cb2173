"""The archives in the model store, and their model-config.yaml, which goes before config.properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ts_handlers.operate.torchserve.archives import MAX_JAVA_INT, Archive
from ts_handlers.operate.torchserve.models import (
    DEFAULT_TIMEOUT_S,
    NUMBERS,
    LoadedModel,
    load_entries,
    loaded_models,
    positive,
)
from ts_handlers.operate.traps.finding import Finding, at_most
from ts_handlers.operate.traps.keys import nearest
from ts_handlers.operate.traps.subject import Subject

FRONTEND_KEYS = (
    *NUMBERS,
    "deviceType",
    "parallelType",
    "parallelLevel",
    "deviceIds",
    "torchrun",
    "maxRetryTimeoutInSec",
    "clientTimeoutInMills",
    "jobQueueSize",
    "useJobTicket",
    "sequenceMaxIdleMSec",
    "sequenceTimeoutMSec",
    "maxSequenceJobQueueSize",
    "maxNumSequence",
    "continuousBatching",
    "sequenceBatching",
    "asyncCommunication",
    "useVenv",
)
"""What the frontend reads from a model-config.yaml; every other key is for the handler."""

_INTEGERS = (*NUMBERS, "jobQueueSize")

_WORKER_MODULES = ("utils", "service", "metrics", "context")
"""Modules beside the worker script, whose folder comes before the model's on the path."""

_HIDDEN_PACKAGES = ("ts_handlers", "tokenizers")
"""Packages the handlers import; the model's folder comes before site-packages on the path."""


def check_archives(subject: Subject) -> Iterator[Finding]:
    """Check the archives themselves, and where they overrule the file."""
    loaded = loaded_models(subject)
    wanted = {file for _, file in load_entries(subject)}
    for name, error in subject.store.broken.items():
        is_loaded = name in wanted
        reason, _, remedy = error.partition("; ")
        yield Finding(
            "problem" if is_loaded else "warning",
            name,
            reason,
            "the server starts without it" if is_loaded else "it is of no use where it is",
            remedy or "repair it",
        )
    for (name, version), count in Counter((model.name, model.version) for model in loaded).items():
        if count > 1:
            yield Finding(
                "problem",
                "load_models",
                f"{name} {version} {count} times",
                "only the first one is loaded",
                "remove the others, or build them as other versions",
            )
    for model in loaded:
        if model.archive.settings is not None:
            yield from at_most(_yaml(model.archive), model.archive.path.name, "settings that do not hold")
            yield from _overruled(model)
        yield from _requirements(subject, model)
        yield from _handler(subject, model.archive.path.name)


def _yaml(archive: Archive) -> Iterator[Finding]:
    settings = archive.settings or {}
    for key, value in settings.items():
        near = nearest(str(key), FRONTEND_KEYS) if key not in FRONTEND_KEYS else None
        if near is not None and key != "handler":
            yield Finding(
                "warning",
                archive.path.name,
                f"{key} in its model-config.yaml",
                "TorchServe does not read it",
                f"write {near}",
            )
        elif key in _INTEGERS and not _is_java_integer(value):
            yield Finding(
                "warning",
                archive.path.name,
                f"{key}: {value!r} in its model-config.yaml",
                "TorchServe takes whole numbers only and goes on as if it were not there",
                "write a whole number, without quotes",
            )
        elif key in _INTEGERS and value <= 0:
            yield _too_small(archive, key, value)
    minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
    if minimum and (maximum or 0) < minimum:
        yield Finding(
            "warning",
            archive.path.name,
            f"minWorkers {minimum}, maxWorkers {maximum or 'not set'} in its model-config.yaml",
            "minWorkers is ignored unless maxWorkers is as large",
            "write maxWorkers, or leave both to config.properties",
        )


def _too_small(archive: Archive, key: str, value: int) -> Finding:
    if archive.setting(key) is not None:
        why = f"TorchServe makes {archive.setting(key)} of it"
    elif key == "maxBatchDelay":
        why = (
            "TorchServe goes on as if it were not there, and waits 100 ms unless config.properties says another number"
        )
    else:
        why = "TorchServe goes on as if it were not there"
    return Finding("warning", archive.path.name, f"{key}: {value} in its model-config.yaml", why, "write 1 or more")


def _is_java_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_JAVA_INT


def _overruled(model: LoadedModel) -> Iterator[Finding]:
    archive, entry = model.archive, model.entry
    own = {key: archive.setting(key) for key in ("batchSize", "maxBatchDelay")}
    minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
    if minimum and maximum and maximum >= minimum:
        own |= {"minWorkers": minimum, "maxWorkers": maximum}
    for key in ("responseTimeout", "startupTimeout"):
        own[key] = archive.setting(key) or DEFAULT_TIMEOUT_S
    for key, value in own.items():
        given = positive(entry, key)
        if value is None or given is None or given == value:
            continue
        is_default = key.endswith("Timeout") and archive.setting(key) is None
        why = f"it sets none, and TorchServe takes {DEFAULT_TIMEOUT_S}" if is_default else f"it says {value}"
        yield Finding(
            "warning",
            f"models: {model.label}",
            f"{key} {given}",
            f"the archive's model-config.yaml goes before it: {why}",
            f"write {value} here, or change the archive",
        )


def _requirements(subject: Subject, model: LoadedModel) -> Iterator[Finding]:
    if model.archive.requirements_file and not subject.is_true("install_py_dep_per_model"):
        yield Finding(
            "warning",
            model.archive.path.name,
            f"it brings {model.archive.requirements_file}",
            "install_py_dep_per_model is off, so nothing is installed when it is loaded",
            "install these packages in the serving image",
        )


def _handler(subject: Subject, file: str) -> Iterator[Finding]:
    contents = subject.contents[file]
    module = contents.handler_module
    if module in _WORKER_MODULES:
        yield Finding(
            "problem",
            file,
            f"its handler is {contents.handler}",
            f"a worker imports TorchServe's own {module} instead, and the model is not loaded",
            "give the handler's file another name, and build it again",
        )
    classes = contents.handler_classes
    if classes is not None and len(classes) != 1:
        yield Finding(
            "problem",
            file,
            f"its {module}.py defines {' and '.join(classes) or 'no class'}",
            "TorchServe wants a handler file that defines exactly one class, or a function handle: a class that is imported "
            "is none, and the model is not loaded",
            "define one class there, such as `class Handler(TheImported): ...`, and move others to another file",
        )
    for package in _HIDDEN_PACKAGES:
        if f"{package}.py" in contents.members:
            yield Finding(
                "problem",
                file,
                f"it brings {package}.py",
                f"it hides the installed package {package} from the handler",
                "give that file another name, and build it again",
            )
