"""What is in the store: model-config.yaml files, which go before config.properties, and the handlers beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from ts_handlers.operate.check.finding import Finding, Rules, found, judge
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.check.text import nearest
from ts_handlers.operate.torchserve.archives import MAX_JAVA_INT, Archive
from ts_handlers.operate.torchserve.handler import classes_of, is_ours
from ts_handlers.operate.torchserve.models import DEFAULT_TIMEOUT_S, NUMBERS, LoadedModel, load_entries, positive

_INTEGERS = "parallelLevel maxRetryTimeoutInSec clientTimeoutInMills sequenceMaxIdleMSec sequenceTimeoutMSec"
_SWITCHES = "useJobTicket continuousBatching sequenceBatching asyncCommunication useVenv"
_AT_LEAST_ONE = (*NUMBERS, "jobQueueSize", "maxSequenceJobQueueSize", "maxNumSequence")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_JAVA_INT


_TYPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys((*_AT_LEAST_ONE, *_INTEGERS.split()), (_is_integer, "a whole number without quotes")),
    **dict.fromkeys(_SWITCHES.split(), (lambda value: isinstance(value, bool), "true or false without quotes")),
    "deviceType": (lambda value: str(value).lower() in ("", "cpu", "gpu"), "cpu or gpu"),
    "parallelType": (lambda value: str(value).lower() in ("", "pp", "tp", "pptp", "custom"), "pp, tp, pptp or custom"),
    "deviceIds": (lambda value: isinstance(value, list) and all(map(_is_integer, value)), "a list such as [0, 1]"),
    "torchrun": (lambda value: isinstance(value, dict), "a table of torchrun's settings"),
}
"""What the frontend reads from a model-config.yaml, and takes there; every other key is for the handler."""

_WORKER_MODULES = ("utils", "service", "metrics", "context")
"""Modules beside the worker script, whose folder comes before the model's on the path."""

_HIDDEN_PACKAGES = ("ts_handlers", "tokenizers")
"""Packages our handlers import; the model's folder comes before site-packages on the path."""


def check_settings(server: Server) -> Iterator[Finding]:
    """Check the archives and folders themselves, and where they overrule the file."""
    wanted = {file for _, file in load_entries(server)}
    for name, error in server.store.broken.items():
        effect = error.effect if name in wanted else "it is of no use where it is"
        if name in wanted or name.endswith(".mar"):
            about = f"{'problem' if name in wanted else 'warning'}: {name}"
            yield found(about, error.reason, f"{effect}; {error.remedy}")
    for (name, version), count in Counter((model.name, model.version) for model in server.loaded).items():
        if count > 1:
            text = "only the first one is loaded; remove the others, or build them as other versions"
            yield found("problem: load_models", f"{name} {version} {count} times", text)
    for model in server.loaded:
        archive = model.archive
        if archive.settings is not None:
            yield from _types(archive)
            yield from _overruled(model)
        yield from judge(_RULES, server, archive)


def _types(archive: Archive) -> Iterator[Finding]:
    about = f"warning: {archive.path.name}"
    for key, value in (archive.settings or {}).items():
        seen, why = f"{key}: {value!r} in its model-config.yaml", "TorchServe goes on as if it were not there"
        is_right, wanted = _TYPES.get(key, (None, ""))
        if is_right is None:
            if key != "handler" and (near := nearest(key, _TYPES)):
                yield found(about, f"{key} in its model-config.yaml", f"TorchServe does not read it; write {near}")
        elif not is_right(value):
            yield found(about, seen, f"{why}, because it wants {wanted}; write that")
        elif key in _AT_LEAST_ONE and value <= 0:
            if archive.setting(key) is not None:
                why = f"TorchServe makes {archive.setting(key)} of it"
            elif key == "maxBatchDelay":
                why += ", and waits 100 ms unless config.properties says another number"
            yield found(about, seen, f"{why}; write 1 or more")


def _overruled(model: LoadedModel) -> Iterator[Finding]:
    archive, entry = model.archive, model.entry
    own = {key: archive.setting(key) for key in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")}
    minimum, maximum = archive.setting("minWorkers"), archive.setting("maxWorkers")
    if minimum and maximum and maximum >= minimum:
        own |= {"minWorkers": minimum, "maxWorkers": maximum}
    for key, value in own.items():
        given = positive(entry, key)
        holds = value or (DEFAULT_TIMEOUT_S if key.endswith("Timeout") else given)
        why = f"it says {value}" if value else f"it sets none, and TorchServe takes {holds}"
        if given is not None and given != holds:
            text = f"the archive's model-config.yaml goes before it: {why}; write {holds} here, or change the archive"
            yield found(f"warning: models: {model.label}", f"{key} {given}", text)


def _workers(archive: Archive, is_wrong: Callable[[int, int], bool]) -> str | bool:
    least, most = archive.setting("minWorkers") or 0, archive.setting("maxWorkers") or 0
    seen = f"minWorkers {least or 'not set'}, maxWorkers {most or 'not set'} in its model-config.yaml"
    return is_wrong(least, most) and seen


_RULES: Rules[[Server, Archive]] = {
    "warning: {1.path.name}: minWorkers is ignored unless maxWorkers is as large; write both, or leave them to "
    "config.properties": lambda _, archive: _workers(archive, lambda least, most: 0 < least > most),
    "warning: {1.path.name}: maxWorkers is ignored without minWorkers; write both, or leave them to "
    "config.properties": lambda _, archive: _workers(archive, lambda least, most: 0 == least < most),
    "hint: {1.path.name}: TorchServe never starts more than minWorkers by itself; set it to what you want, or use the "
    "management API": lambda _, archive: _workers(archive, lambda least, most: 0 < least < most),
    "warning: {1.path.name}: TorchServe finds no GPU here, and its workers use CPUs; check it on a machine like the one "
    "that serves": lambda server, archive: (
        server.machine.gpus == 0
        and (settings := archive.settings) is not None
        and (str(settings.get("deviceType")).lower() == "gpu" or isinstance(settings.get("deviceIds"), list))
        and "a GPU in its model-config.yaml"
    ),
    "warning: {1.path.name}: install_py_dep_per_model is off, so nothing is installed when it is loaded; install these "
    "packages in the serving image": lambda server, archive: (
        archive.requirements_file is not None
        and not server.is_true("install_py_dep_per_model")
        and f"it brings {archive.requirements_file}"
    ),
    "problem: {1.path.name}: default_service_handler names none either, and the model is never ready; name one when the "
    "archive is packed": lambda server, archive: (
        not archive.handler and not server.is_written("default_service_handler") and "its manifest names no handler"
    ),
    "problem: {1.path.name}: a worker imports TorchServe's own {1.handler_module} instead, and the model is not loaded; "
    "give the handler's file another name, and build it again": lambda _, archive: (
        archive.handler_module in _WORKER_MODULES and f"its handler is {archive.handler}"
    ),
    "problem: {1.path.name}: TorchServe wants a handler file that defines exactly one class, or a function handle: a "
    "class that is imported is none, and the model is not loaded; define one class there, such as `class "
    "Handler(TheImported): ...`, and move others to another file": lambda _, archive: (
        (classes := classes_of(archive)) is not None
        and len(classes) != 1
        and f"its {archive.handler_module}.py defines {' and '.join(classes) or 'no class'}"
    ),
    "problem: {1.path.name}: it hides the installed package of that name from the handler; give that file another name, "
    "and build it again": lambda _, archive: (
        is_ours(archive)
        and next((f"it brings {name}.py" for name in _HIDDEN_PACKAGES if f"{name}.py" in archive.names), False)
    ),
}
