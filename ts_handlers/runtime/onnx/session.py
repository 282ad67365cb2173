"""ONNX Runtime sessions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.machine import CpuShare
from ts_handlers.machine.memory import available_memory
from ts_handlers.runtime.feeds import feed_as
from ts_handlers.runtime.onnx.packed import MIN_BYTES, packed_model
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.shapes import Array
from ts_handlers.telemetry import disable_telemetry

disable_telemetry()
try:
    import onnxruntime as ort

    from ts_handlers.runtime.onnx.binding import BoundCalls  # it imports onnxruntime, too
except ImportError as error:
    raise RuntimeUnavailableError(
        f"onnxruntime cannot be imported ({error}); install ts_handlers[cpu] or ts_handlers[gpu]"
    ) from error

logger = logging.getLogger(__name__)

_CPU, _OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
_NVIDIA_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
_GPU_PROVIDERS = _NVIDIA_PROVIDERS | {"ROCMExecutionProvider", "MIGraphXExecutionProvider"}
_SLOW_ON_CPU = ["SkipLayerNormFusion"]
"""Fusions whose kernel is slower on the CPU than its parts: measured, 0.89 ms against 0.32 ms of a call of 6 ms."""

_MEMORY_OF_FILE = 2
"""A session takes up to so many times the bytes of its files while it is opened."""

_LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_DTYPES = {
    "tensor(bool)": np.bool_,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}

Provider = tuple[str, dict[str, str]]


class OnnxSession:
    """An ONNX model in ONNX Runtime.

    On several threads it is opened twice, where there is memory for it: a call that is alone is spread over all threads;
    of calls made at the same time each has one thread, because that way a batch takes less time. On a small model four
    calls of two texts, two at a time, took 0.91 of the time of one call of eight texts on two threads.

    Attributes:
        providers: Execution providers, as the session says after it exists.
    """

    def __init__(self, config: RuntimeConfig, files: ModelFiles, share: CpuShare) -> None:
        self._path = files.path(config.file)
        self._config = config
        self._wanted = choose_providers(config, files.gpu_id, ort.get_available_providers(), share.threads)
        self._share = share
        self._packed = self._pack(share)
        self._session = self._open(share, share.threads)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        check_providers(config, self._wanted, self.providers)
        self._bound = self._bind()
        self._single_threaded = self._open_single_threaded(share)
        self._inputs = {item.name: _dtype(item.name, item.type) for item in self._session.get_inputs()}
        self._output_names = [item.name for item in self._session.get_outputs()]

    @property
    def max_parallel(self) -> int:
        """As many calls as threads; one where there is no second session for them."""
        return 1 if self._single_threaded is None else self._share.threads

    @property
    def runs_on_device(self) -> bool:
        """Whether it computes on a GPU."""
        return not _GPU_PROVIDERS.isdisjoint(self.providers)

    @property
    def num_threads(self) -> int:
        """Threads of a call that is alone, as the session has them."""
        return int(self._session.get_session_options().intra_op_num_threads)

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch; the graph decides which arrays are fed and as what type."""
        try:
            feed = {name: feed_as(name, arrays[name], dtype) for name, dtype in self._inputs.items()}
        except KeyError as error:
            raise ConfigError(
                f"the model takes an input {error} that the handler does not make; it makes: {', '.join(arrays)}"
            ) from error
        session = self._session if num_parallel < 2 or self._single_threaded is None else self._single_threaded
        outputs = session.run(self._output_names, feed) if self._bound is None else self._bound.run(feed)
        return {
            name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
            for name, array in zip(self._output_names, outputs, strict=True)
        }

    def change_threads(self, share: CpuShare) -> None:
        """Open the model again with other threads: a session's pool never changes its size.

        Only on the CPU, and only where there is memory for all workers to do so at once; else it keeps its threads.
        """
        if (share.threads, share.is_exclusive) == (self._share.threads, self._share.is_exclusive):
            return
        if share.threads == 1 and self._single_threaded is not None:
            self._session, self._single_threaded, self._share = self._single_threaded, None, share
            return
        reason = self._too_large(share) if self._is_on_cpu else f"it runs on {', '.join(self.providers)}"
        if not reason:
            try:
                self._session, self._single_threaded = (
                    self._open(share, share.threads),
                    self._open_single_threaded(share),
                )
                self._share = share
            except ConfigError as error:  # the unpacked archive is gone, say: what is loaded still works
                reason = str(error)
            else:
                return
        logger.warning(
            "ts_handlers: the ONNX session keeps %d threads, though %d fit now: %s; restart the worker to change them",
            self._share.threads,
            share.threads,
            reason,
        )

    def describe(self) -> str:
        """Say the version, the providers and the precision."""
        bound = ", bound" if self._bound is not None else ""
        twice = ", a session for calls side by side" if self._single_threaded is not None else ""
        return f"onnxruntime {ort.__version__} on {', '.join(self.providers)}, {self._config.precision}{bound}{twice}"

    def _bind(self) -> BoundCalls | None:
        """Keep inputs and outputs in the GPU's memory, where CUDA or TensorRT computes."""
        if self.providers[0] not in _NVIDIA_PROVIDERS:
            return None
        device_id = dict(self._wanted)[self.providers[0]].get("device_id", "0")
        return BoundCalls(self._session, "cuda", int(device_id))

    @property
    def _is_on_cpu(self) -> bool:
        return self.providers == (_CPU,)

    def _open_single_threaded(self, share: CpuShare) -> ort.InferenceSession | None:
        """Open the session for calls side by side; none where there is one thread, another provider, or little memory."""
        if share.threads == 1 or not self._is_on_cpu:
            return None
        reason = self._too_large(share)
        if reason:
            logger.warning("ts_handlers: calls are made one by one on %d threads: %s", share.threads, reason)
            return None
        return self._open(share, 1)

    def _too_large(self, share: CpuShare) -> str:
        """Say why the model cannot be opened once more by all workers; weights may lie in files beside it."""
        needed = share.num_workers * _MEMORY_OF_FILE * sum(file.stat().st_size for file in _files_beside(self._path))
        free = available_memory()
        return f"{share.num_workers} workers would need {needed} bytes and {free} are free" if needed > free else ""

    def _open(self, share: CpuShare, threads: int) -> ort.InferenceSession:
        options = session_options(self._config, dataclasses.replace(share, threads=threads))
        if self._packed is None:
            return self._load(self._path, options)
        options.graph_optimization_level = _LEVELS["disable"]  # it was optimized before it was written
        try:
            return self._load(self._packed, options)
        except ConfigError as error:
            logger.warning("ts_handlers: weights are not shared: %s", error)
            self._packed = None
            return self._open(share, threads)

    def _load(self, path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
        disabled = _SLOW_ON_CPU if [name for name, _ in self._wanted] == [_CPU] else []
        try:
            return ort.InferenceSession(str(path), options, providers=self._wanted, disabled_optimizers=disabled)
        except Exception as error:  # onnxruntime's errors have no common base class
            raise ConfigError(f"ONNX Runtime cannot load {path.name}: {error}") from error

    def _pack(self, share: CpuShare) -> Path | None:
        """Return the model with packed weights to share, where there are workers to share them with; only CPUs can."""
        is_large = sum(file.stat().st_size for file in _files_beside(self._path)) >= MIN_BYTES
        if not (self._config.share_weights and share.num_workers > 1 and self._wanted == [(_CPU, {})] and is_large):
            return None
        options = session_options(self._config, dataclasses.replace(share, threads=1))
        options.log_severity_level = 3  # not its warning that the file is for this machine

        def write(path: Path, weights: str) -> None:
            options.optimized_model_filepath = str(path)
            for name, value in (
                ("session.optimized_model_external_initializers_file_name", weights),
                ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
                ("session.save_external_prepacked_constant_initializers", "1"),
            ):
                options.add_session_config_entry(name, value)
            self._load(self._path, options)

        return packed_model(self._path, f"{ort.__version__} {self._config.graph_optimization_level}", write)


def _files_beside(path: Path) -> list[Path]:
    """Return the model and what lies with it: weights may be in files of their own."""
    return [file for file in path.parent.glob("*") if file.is_file()] if path.exists() else []


def session_options(config: RuntimeConfig, share: CpuShare) -> ort.SessionOptions:
    """Return options that keep a session within its share: its threads, one operator at a time, no idle spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = share.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = _LEVELS[config.graph_optimization_level]
    spinning = share.is_exclusive if config.allow_spinning is None else config.allow_spinning
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "1" if spinning else "0")
    return options


def choose_providers(
    config: RuntimeConfig, gpu_id: int | None, available: Sequence[str], threads: int = 1
) -> list[Provider]:
    """Decide the providers to ask for, with the worker's GPU as device_id, and its threads where a provider has its own.

    Args:
        config: `auto`, or names in order of preference.
        gpu_id: The worker's GPU; None on the CPU.
        available: What this build of ONNX Runtime has.
        threads: The worker's threads.

    Raises:
        RuntimeUnavailableError: A named provider is not available.
        ConfigError: provider_options do not match the providers.
    """
    if config.providers == "auto":
        if config.provider_options:
            raise ConfigError("handler.runtime.provider_options needs providers by name, not auto")
        names: tuple[str, ...] = (_CPU,)
        if gpu_id is not None and "CUDAExecutionProvider" in available:
            names = ("CUDAExecutionProvider", _CPU)
        elif gpu_id is not None:
            logger.warning(
                "GPU %d is not used: this onnxruntime has no CUDAExecutionProvider; running on the CPU", gpu_id
            )
        options: Sequence[Mapping[str, str]] = [{} for _ in names]
    else:
        names, options = config.providers, config.provider_options or [{} for _ in config.providers]
    if len(options) != len(names):
        raise ConfigError(
            f"handler.runtime has {len(names)} providers and {len(options)} provider_options; give one mapping for each"
        )
    missing = [name for name in names if name not in available]
    if missing:
        raise RuntimeUnavailableError(
            f"handler.runtime.providers asks for {', '.join(missing)}; this onnxruntime has {', '.join(available)}"
        )
    return [(name, _with_share(name, dict(given), gpu_id, threads)) for name, given in zip(names, options, strict=True)]


def check_providers(config: RuntimeConfig, wanted: Sequence[Provider], active: Sequence[str]) -> None:
    """Compare what was asked for with what the session has; ONNX Runtime itself falls back silently.

    Raises:
        RuntimeUnavailableError: A provider named in the configuration is not active.
    """
    missing = [name for name, _ in wanted if name not in active]
    if not missing:
        return
    message = f"{', '.join(missing)} could not start (drivers? libraries?); the session runs on {', '.join(active)}"
    if config.providers != "auto":
        raise RuntimeUnavailableError(message)
    logger.warning("%s", message)


def _with_share(name: str, options: dict[str, str], gpu_id: int | None, threads: int) -> dict[str, str]:
    if name in _GPU_PROVIDERS and gpu_id is not None:
        options.setdefault("device_id", str(gpu_id))
    if name == _OPENVINO and "load_config" not in options:
        options.setdefault("num_of_threads", str(threads))
    return options


def _dtype(name: str, type_name: str) -> Any:
    if type_name not in _DTYPES:
        raise ConfigError(f"the model's input {name} is of type {type_name}; known: {', '.join(_DTYPES)}")
    return _DTYPES[type_name]
