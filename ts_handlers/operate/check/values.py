"""The values of single properties: what Java and Python make of their text, and of the files that they name."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ts_handlers.hosts.torchserve.metrics import CATALOGUE
from ts_handlers.operate.check.finding import Finding, Rules, found, judge
from ts_handlers.operate.check.server import Server, compiled
from ts_handlers.operate.torchserve.config import CONFIG_VARIABLE, java_int, overrides
from ts_handlers.operate.torchserve.handler import is_ours
from ts_handlers.operate.torchserve.keys import KNOWN

_METRICS_MODES = ("log", "prometheus", "legacy")
_ENVELOPES = ("body", "json", "kserve", "kservev2")
_ENVELOPES_OF_ONE = ("kserve", "kservev2")
_PYTHON_SWITCHES = ("decode_input_request", "ipex_enable", "ipex_gpu_enable")
_COMMON = ["ModelName", "Level"]
_TAKE_OURS = "take the metrics.yaml that ts-handlers configure writes"
_LONG = re.compile(r"[+-]?[0-9]{1,19}")
_NO_NUMBER = "TorchServe does not start: it is no whole number; correct it"
_NO_START = "TorchServe does not start"

_KINDS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "bool": (
        lambda text: text.lower() in ("true", "false"),
        "everything but true counts as false; write true or false",
    ),
    "int": (lambda text: java_int(text) is not None, _NO_NUMBER),
    "port": (lambda text: java_int(text) is not None, _NO_NUMBER),
    "long": (_LONG.fullmatch, _NO_NUMBER),
    "float": (lambda text: _is_positive(text), "no number above 0: tokens are of no use, or live 60 minutes; write 60"),
    "pattern": (compiled, "TorchServe does not start: it is no regular expression; correct it"),
}
"""By kind: what is right, and what TorchServe makes of anything else."""

_LEAST: Mapping[str, tuple[int, str]] = {
    "job_queue_size": (1, "TorchServe ends when it loads a model"),
    "max_request_size": (1, "no request is served"),
    "max_response_size": (1, "no answer is taken from a worker"),
    "default_response_timeout": (1, "a worker is ended as soon as it has a request"),
    "default_startup_timeout": (1, "a worker is ended as soon as it begins to load: no model is ever ready"),
    "unregister_model_timeout": (0, "no model can be removed"),
    "default_workers_per_model": (0, "no worker is started"),
    "number_of_netty_threads": (0, _NO_START),
    "netty_client_threads": (0, _NO_START),
    "metric_time_interval": (1, _NO_START),
}
"""The smallest number that works, and what happens below it."""

_PATHS: Mapping[str, tuple[Callable[[Server], bool], str]] = {
    "model_store": (lambda server: server.place.model_store is None, "`torchserve` does not start"),
    "private_key_file": (lambda server: _opens_key_pair(server), _NO_START),
    "certificate_file": (lambda server: _opens_key_pair(server), _NO_START),
    "keystore": (lambda server: server.uses_https, _NO_START),
    "metrics_config": (lambda server: server.metrics_file is None, "no worker starts"),
    "workflow_store": (bool, "no workflow is found"),
    "cpp_log_config": (bool, "workers of C++ go without it"),
    "plugins_path": (bool, "no plugin is loaded"),
}
"""Properties that name a file or folder: when TorchServe opens it, and what happens where it is not there."""


def check_values(server: Server) -> Iterator[Finding]:
    """Check each value by itself."""
    for key, value in server.values.items():
        known = KNOWN.get(key)
        is_right, text = _KINDS.get(known.kind if known else "", (bool, ""))
        number = java_int(value)
        if text and not is_right(value):
            yield found(f"problem: {key}", repr(value), text)
        elif key in _LEAST and number is not None and number < _LEAST[key][0]:
            yield found(f"problem: {key}", value, f"{_LEAST[key][1]}; write {_LEAST[key][0]} or more")
        elif key in _PYTHON_SWITCHES and value.lower() == "true" != value:
            text = 'workers compare it with "true" letter by letter, so this counts as false'
            yield found(f"problem: {key}", value, f"{text}; write true in small letters")
    yield from judge(_RULES, server)
    yield from _paths(server)
    yield from _metrics(server)


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _opens_key_pair(server: Server) -> bool:
    """Whether TorchServe opens private_key_file and certificate_file, which it reads both or not at all."""
    has_both = server.is_written("private_key_file") and server.is_written("certificate_file")
    return has_both and (server.is_true("enable_grpc_ssl") or (server.uses_https and not server.is_written("keystore")))


def _paths(server: Server) -> Iterator[Finding]:
    """Find paths that lead nowhere; where the model store is away, the others of another machine are, too."""
    opened = [key for key, (is_opened, _) in _PATHS.items() if server.values.get(key) and is_opened(server)]
    paths = {key: server.place.find(server.values[key].removesuffix("/*")) for key in opened}
    gone = [key for key, path in paths.items() if not _exists(path)]
    for key in gone:
        path, beside = paths[key], server.path.parent / paths[key]
        if "model_store" in gone[: gone.index(key)] and path.is_absolute() == paths["model_store"].is_absolute():
            continue
        text = f"there is no {path}{'' if path.is_absolute() else f' in {Path.cwd()}'}: {_PATHS[key][1]}; "
        if _exists(beside):
            text += f"start the server in {server.path.parent.resolve()}, where it is, or write an absolute path"
        else:
            text += "correct the path, or say where another machine's files are: --root DIR or --model-store DIR"
        yield found(f"problem: {key}", server.values[key], text)
    for key in _PATHS:
        if server.values.get(key, "/")[:1] != "/" and key not in gone:
            text = "it counts from the folder the server is started in, not from this file; write an absolute path"
            yield found(f"warning: {key}", server.values[key], text)
    pair = [paths[key] for key in ("private_key_file", "certificate_file") if key in paths and key not in gone]
    if len(pair) == 2 and (reason := _key_fault(*pair)):
        text = f"TorchServe cannot use it with its certificate ({reason})"
        yield found("problem: private_key_file", pair[0], f"{text}; give an RSA key without a password, and its own")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long, or a folder may not be read
        return False


def _key_fault(key: Path, certificate: Path) -> str:
    """Try a private key with its certificate; TorchServe takes RSA alone, without a password."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        return "it is for an elliptic curve" if b"BEGIN EC " in key.read_bytes() else ""
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return getattr(error, "strerror", None) or str(error)


def _metrics(server: Server) -> Iterator[Finding]:
    """Check that what is measured reaches Prometheus."""
    has_ours = _has_ours(server)
    is_dropped = has_ours and not server.is_true("model_metrics_auto_detect")
    named, content = server.values.get("metrics_config", ""), server.metrics_file
    if isinstance(content, str):
        text = f"it cannot be read ({content}): no worker starts; {_TAKE_OURS}"
        yield found("problem: metrics_config", named, text)
    elif content is not None:
        yield from _catalogue(named, content, has_ours=has_ours, is_dropped=is_dropped)
    elif is_dropped and not server.is_written("metrics_config"):
        text = f"TorchServe's own list has none of the handlers' metrics, so they are dropped; {_TAKE_OURS}"
        yield found("warning: metrics_config", "not set", text)


def _catalogue(named: str, content: Mapping[str, Any], *, has_ours: bool, is_dropped: bool) -> Iterator[Finding]:
    section = content.get("model_metrics")
    if not isinstance(section, dict) or not section:
        yield found("problem: metrics_config", named, f"it has no model_metrics: no worker starts; {_TAKE_OURS}")
        return
    rows = [row for rows in section.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    dimensions = {str(row.get("name")): row.get("dimensions") for row in rows}
    missing = [spec.name for spec in CATALOGUE if spec.name not in dimensions]
    if missing and is_dropped:
        seen = f"{named} without {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}"
        yield found("warning: metrics_config", seen, f"TorchServe drops metrics it does not name; {_TAKE_OURS}")
    for spec in CATALOGUE if has_ours else ():
        wanted = [*spec.dimensions, *_COMMON]
        if spec.name in dimensions and dimensions[spec.name] != wanted:
            seen = f"{spec.name} with dimensions {dimensions[spec.name]}"
            text = f"values are matched by position, and come as {wanted}; {_TAKE_OURS}"
            yield found("warning: metrics_config", seen, text)


def _has_ours(server: Server) -> bool:
    return any(is_ours(model.archive) for model in server.loaded)


def _metrics_mode(server: Server) -> str:
    return "".join(server.values.get("metrics_mode", "log").split()).lower()


def _environment(server: Server) -> str | bool:
    written = server.text.values
    changed = overrides(written, server.environ).items()
    names = [KNOWN[key].variable for key, value in changed if value != written.get(key)]
    is_on = written.get("enable_envvars_config", "").lower() == "true"
    return bool(names) and is_on and f"true, and {', '.join(names)} in the environment"


def _envelope(server: Server) -> str:
    return server.values.get("service_envelope", "")


def _batched(server: Server) -> str | bool:
    labels = ", ".join(model.label for model in server.loaded if model.batch_size > 1)
    return bool(labels) and _envelope(server) in _ENVELOPES_OF_ONE and f"{_envelope(server)}, with batches of {labels}"


_RULES: Rules[Server] = {
    "warning: model_store: `torchserve` does not start without --model-store; write its path": lambda server: (
        server.store.folder is None and "model_store" not in server.text.unclear and "not set"
    ),
    "problem: metrics_mode: TorchServe knows no such mode and goes on with log; write prometheus": lambda server: (
        _metrics_mode(server) not in _METRICS_MODES
    ),
    "warning: metrics_mode: metrics go to the logs only, and the metrics address has none of them; write "
    "metrics_mode=prometheus": lambda server: (
        _metrics_mode(server) == "log" and server.is_true("enable_metrics_api", default=True)
    ),
    f"problem: service_envelope: no worker loads its model: TorchServe 0.12 has {', '.join(_ENVELOPES)}; write one of "
    "them, or remove the line": lambda server: _envelope(server) not in ("", *_ENVELOPES),
    "problem: service_envelope: it reads the first request of a batch only, and the whole batch is answered 503; "
    "remove the line, or set batchSize to 1": _batched,
    "warning: service_envelope: it unpacks bodies of every model before the handler sees them, which ts_handlers "
    "do themselves; remove the line": lambda server: (
        _envelope(server) in _ENVELOPES and not _batched(server) and _has_ours(server)
    ),
    "warning: python: `torchserve` runs workers with the Python that it runs with itself, whatever this says; "
    "start torchserve from the environment that workers need": lambda server: "python" in server.values,
    "hint: model_server_home: `torchserve` gives its own folder, whatever this says; remove the line": lambda server: (
        "model_server_home" in server.values
    ),
    "hint: ipex_enable: only the stock base handler reads it; remove it, if your handlers are others": lambda server: (
        "true" in (server.values.get("ipex_enable"), server.values.get("ipex_gpu_enable"))
    ),
    "warning: enable_envvars_config: these variables go before the file; unset them, or set "
    "enable_envvars_config=false": _environment,
    f"warning: {CONFIG_VARIABLE}: `torchserve` reads the file this variable names, not this one; unset it, or start with "
    "ts-handlers serve": lambda server: (
        bool(named := server.environ.get(CONFIG_VARIABLE, ""))
        and Path(named).resolve() != server.path.resolve()
        and named
    ),
}
