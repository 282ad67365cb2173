r"""Test a handler without a server: TorchServe's context and metrics, faked, and a batch in one call.

    handler = load_handler(MyHandler, model_dir)   # or load_archive(Path("model_store/sentiment.mar"))
    good, bad = predict(handler, "a text", b"\xff")

What is faked is TorchServe alone: session, tokenizer and thread limits are real.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ts_handlers.config.reading import load_json, load_yaml
from ts_handlers.errors import ConfigError, first_line

H = TypeVar("H")


@dataclass(frozen=True, slots=True)
class Observation:
    """One emitted metric value."""

    name: str
    value: float
    dimensions: tuple[str, ...]


@dataclass(slots=True)
class FakeMetric:
    """One metric of `FakeMetrics`."""

    name: str
    seen: list[Observation]

    def add_or_update(self, value: float, dimension_values: list[str], request_id: str = "") -> None:
        """Keep the value."""
        del request_id
        self.seen.append(Observation(self.name, value, tuple(dimension_values)))


class FakeMetrics:
    """TorchServe's metrics cache; `seen` holds every value in order."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.cache: dict[Any, dict[str, FakeMetric]] = {}
        self.seen: list[Observation] = []

    def add_metric_to_cache(
        self, metric_name: str, unit: str, dimension_names: list[str], metric_type: Any
    ) -> FakeMetric:
        """Declare a metric."""
        del unit, dimension_names
        metric = FakeMetric(metric_name, self.seen)
        self.cache.setdefault(metric_type, {})[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: Any) -> FakeMetric:
        """Return a declared metric."""
        return self.cache[metric_type][metric_name]

    def add_time(self, name: str, value: float, idx: int | None = None, unit: str = "ms") -> None:
        """Keep a time."""
        del idx, unit
        self.seen.append(Observation(name, value, ()))

    def values(self, name: str) -> list[float]:
        """Return the values of one metric, in order."""
        return [item.value for item in self.seen if item.name == name]


@dataclass(slots=True)
class FakeContext:
    """TorchServe's context of one worker.

    Attributes:
        model_dir: The unpacked archive.
        model_yaml_config: Parsed model-config.yaml.
        manifest: Parsed MAR-INF/MANIFEST.json.
        batch_size: The frontend's batch size.
        gpu_id: The worker's GPU; None on the CPU.
        model_name: Name the model is registered under.
        metrics: Where values go.
    """

    model_dir: Path
    model_yaml_config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    gpu_id: int | None = None
    model_name: str = "model"
    metrics: Any = None
    request_headers: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    content_types: dict[int, str] = field(default_factory=dict)
    response_headers: dict[int, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics = self.metrics or FakeMetrics(self.model_name)

    @property
    def system_properties(self) -> dict[str, Any]:
        """What TorchServe tells a worker about itself."""
        return {
            "model_dir": str(self.model_dir),
            "gpu_id": self.gpu_id,
            "batch_size": self.batch_size,
            "owns_process": False,  # TorchServe says nothing here: its workers are counted and bound to CPUs
        }

    def start_batch(self, headers: list[dict[str, Any]]) -> None:
        """Forget the last batch; take the headers of the next, one mapping a row."""
        self.request_headers, self.statuses, self.content_types, self.response_headers = headers, {}, {}, {}

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return the headers of a row."""
        return self.request_headers[idx]

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return one header of a row."""
        return self.request_headers[idx].get(key)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Keep the status of a row."""
        del phrase
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Keep the content type of a row."""
        self.content_types[idx] = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Keep a header of a row's answer."""
        self.response_headers.setdefault(idx, {})[key] = value


@dataclass(frozen=True, slots=True)
class Response:
    """What one row was answered."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Raw:
    """A row as TorchServe would hand it over, with headers."""

    row: Mapping[str, Any]
    headers: Mapping[str, Any] = field(default_factory=dict)


def load_handler(
    handler_class: type[H],
    model_dir: Path,
    model_config: Mapping[str, Any] | None = None,
    *,
    serialized_file: str | None = None,
    batch_size: int = 8,
) -> H:
    """Construct and initialize a handler on an unpacked archive.

    Args:
        handler_class: The handler.
        model_dir: Folder with the archive's files.
        model_config: Contents of model-config.yaml; by default the file in `model_dir`, if there is one.
        serialized_file: Model file; by default the manifest's.
        batch_size: The frontend's batch size.
    """
    manifest_file = model_dir / "MAR-INF" / "MANIFEST.json"
    manifest = load_json(manifest_file) if manifest_file.is_file() else {"model": {"modelName": "model"}}
    if serialized_file is not None:
        manifest["model"]["serializedFile"] = serialized_file
    if model_config is None:
        config_file = model_dir / "model-config.yaml"
        model_config = load_yaml(config_file) if config_file.is_file() else {}
    context = FakeContext(
        model_dir, model_config or {}, manifest, batch_size, model_name=manifest["model"]["modelName"]
    )
    handler: Any = handler_class()
    handler.initialize(context)
    return handler  # type: ignore[no-any-return]  # Any in the middle: TorchServe's base class has no types


def load_archive(path: Path, *, batch_size: int = 8) -> Any:
    """Load an archive as a worker does: its own handler file, with its own settings.

    Args:
        path: A .mar file, or the folder that one was unpacked into.
        batch_size: The frontend's batch size.

    Returns:
        Its handler, initialized; what it needs on disk is removed with it.

    Raises:
        ConfigError: It is no archive, or its handler file does not define exactly one class or a function `handle`.
    """
    if path.is_dir():
        return _load_folder(path, batch_size)
    folder = tempfile.TemporaryDirectory(prefix="ts_handlers-")
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder.name)
        handler = _load_folder(Path(folder.name), batch_size)
    except (OSError, zipfile.BadZipFile) as error:
        folder.cleanup()
        raise ConfigError(f"{path} cannot be read as a .mar: {first_line(error)}") from error
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(handler, folder.cleanup)
    return handler


class _HandleFunction:
    """A module-level `handle` with the look of a handler."""

    def __init__(self, function: Callable[[Any, Any], Any], context: FakeContext) -> None:
        self.handle, self.context = function, context


def _load_folder(folder: Path, batch_size: int) -> Any:
    try:
        manifest = load_json(folder / "MAR-INF" / "MANIFEST.json")
        model = manifest["model"]
        file, _, function = str(model["handler"]).partition(":")
        name = str(model["modelName"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} has no usable MAR-INF/MANIFEST.json: {first_line(error)}") from error
    config_file = folder / _own_path(str(model.get("configFile", "model-config.yaml")))
    try:
        config = load_yaml(config_file) if config_file.is_file() else {}
    except ValueError as error:
        raise ConfigError(f"{config_file.name} cannot be read: {error}") from error
    context = FakeContext(folder, config or {}, manifest, batch_size, model_name=name)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        path = _own_path(file)
        module = _import(folder / path if (folder / path).is_file() else folder / path.name)
        found = getattr(module, function or "handle", None)
        if found is not None:
            found(None, context)  # TorchServe's call to initialize
            return _HandleFunction(found, context)
        handler: Any = _only_class(module, file)()
        handler.initialize(context)
    finally:
        sys.path.remove(str(folder))
        _forget(set(sys.modules) - before, folder)
    handler.context = context
    return handler


def _forget(names: set[str], folder: Path) -> None:
    """Take an archive's own modules out of the process: the next archive may have others of these names."""
    for name in names:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


def _own_path(name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"MAR-INF/MANIFEST.json names {name!r}, which is outside the archive; build it again")
    return path


def _import(file: Path) -> ModuleType:
    """Import a handler file under its own name, as TorchServe does."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"the archive has no handler file {file.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _only_class(module: ModuleType, name: str) -> type:
    classes = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    if len(classes) != 1:
        names = ", ".join(item.__name__ for item in classes) or "none"
        raise ConfigError(f"{name} must define exactly one class, as TorchServe wants; it defines {names}")
    return classes[0]


def predict(handler: Any, *payloads: Any) -> list[Response]:
    """Send one batch through an initialized handler, one payload a row.

    A str arrives as text/plain, bytes as an untyped body, anything else as parsed JSON; `Raw` gives full control.
    """
    raws = [payload if isinstance(payload, Raw) else Raw({"body": payload}, _headers(payload)) for payload in payloads]
    context = handler.context
    context.start_batch([dict(raw.headers) for raw in raws])
    bodies = handler.handle([dict(raw.row) for raw in raws], context)
    return [
        Response(
            context.statuses.get(index, 200),
            body,
            context.content_types.get(index, ""),
            context.response_headers.get(index, {}),
        )
        for index, body in enumerate(bodies)
    ]


def _headers(payload: Any) -> dict[str, Any]:
    if isinstance(payload, (bytes, bytearray)):
        return {}
    return {"body": {"content-type": "text/plain" if isinstance(payload, str) else "application/json"}}
