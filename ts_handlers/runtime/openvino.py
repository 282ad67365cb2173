"""OpenVINO sessions: a graph compiled for each shape of the buckets, and one for any other shape.

With shapes that change from call to call OpenVINO plans its memory and picks its kernels anew, which costs up to a third of
its speed. A graph of a fixed shape has done so once. What it costs is memory, which `handler.runtime.max_memory_mb` bounds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import psutil

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError, first_line
from ts_handlers.machine import CpuShare
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.shapes import Array, Shape
from ts_handlers.telemetry import disable_telemetry

disable_telemetry()
try:
    import openvino as ov
except ImportError as error:
    raise RuntimeUnavailableError(f"openvino cannot be imported ({error}); install ts_handlers[openvino]") from error

logger = logging.getLogger(__name__)

IDS, EMBEDDINGS = "input_ids", "inputs_embeds"
"""Input that names rows of the embedding table, and the input that takes these rows."""

_MIB = 2**20
_VERSION = ov.__version__.partition("-")[0]
_PRECISIONS = ("fp32", "bf16", "int8")


@cache
def process_core() -> Any:
    """Return the one core of this process, which is never closed.

    A core that is closed puts back the signal stack that it found when opened; with several it may be one that is freed.
    """
    return ov.Core()


class OpenVinoSession:
    """An OpenVINO model on the CPU, in as many threads as the worker has.

    Args:
        config: `handler.runtime`.
        files: The unpacked archive.
        share: The worker's share of the CPUs.
        shapes: Shapes to compile graphs of their own for; where there is no memory for all, the first of them.

    Raises:
        ConfigError: The model or its embedding table cannot be loaded.
    """

    max_parallel = 1  # a call is spread over all threads; for calls side by side every graph would be needed twice
    runs_on_device = False

    def __init__(self, config: RuntimeConfig, files: ModelFiles, share: CpuShare, shapes: Sequence[Shape] = ()) -> None:
        self._config, self._threads, self._shapes = config, share.threads, shapes
        if files.gpu_id is not None:
            logger.warning("GPU %d is not used: the openvino backend runs on the CPU", files.gpu_id)
        if config.precision not in _PRECISIONS:
            raise ConfigError(
                f"handler.runtime.precision is {config.precision}; the openvino backend runs {', '.join(_PRECISIONS)}"
            )
        path = files.path(config.file)
        self._core = process_core()
        try:
            self._model = self._core.read_model(path)
            self._any_shape = self._compile(None)
            self._inputs = {item.any_name: item.element_type.to_dtype() for item in self._model.inputs}
            self._output_names = [item.any_name for item in self._model.outputs]
            self._graphs = self._compile_shapes()
        except RuntimeError as error:
            raise ConfigError(
                f"OpenVINO {_VERSION} cannot load {path.name}: {first_line(error)}; build the archive again with this "
                "version"
            ) from error
        self._embeddings = _open_table(config, files)

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch, in the graph of its shape where there is one."""
        del num_parallel
        if self._embeddings is not None:
            arrays = {**arrays, EMBEDDINGS: self._embeddings[arrays[IDS]]}
        try:
            feed = {name: arrays[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}
        except KeyError as error:
            raise ConfigError(
                f"the model takes an input {error} that the handler does not make; it makes: {', '.join(arrays)}"
            ) from error
        rows, length = next(iter(feed.values())).shape[:2]
        outputs = self._graphs.get((rows, length), self._any_shape).infer(feed, share_inputs=True)
        return {
            name: array.astype(np.float32, copy=False) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in zip(self._output_names, outputs.values(), strict=True)
        }

    def change_threads(self, share: CpuShare) -> None:
        """Compile the graphs again, one by one, for another number of threads."""
        if share.threads == self._threads:
            return
        self._threads = share.threads
        self._any_shape = self._compile(None)
        for shape in self._graphs:
            self._graphs[shape] = self._compile(shape)

    def describe(self) -> str:
        """Say the version, the precision, and which shapes have a graph."""
        shapes = " ".join(f"{rows}x{length}" for rows, length in self._graphs)
        graphs = f"a graph each for {shapes}, and one for any other shape" if shapes else "one graph for any shape"
        floats = f" and {self._config.float_precision}" if self._config.precision == "int8" else ""
        return f"openvino {_VERSION} on the CPU, {self._config.precision}{floats}, {graphs}"

    def _compile_shapes(self) -> dict[Shape, Any]:
        """Compile and run a graph for each shape, as long as these graphs together stay within the limit."""
        graphs: dict[Shape, Any] = {}
        limit, before = self._config.max_memory_mb, private_bytes()
        for shape in self._shapes:
            graphs[shape] = graph = self._compile(shape)
            graph.infer([np.zeros(item.shape, item.element_type.to_dtype()) for item in graph.model_inputs])
            taken = (private_bytes() - before) // _MIB
            if limit is not None and taken > limit:
                del graphs[shape]
                logger.warning(
                    "ts_handlers: %d of %d shapes have a graph of their own: with another one they would take %d MiB, and "
                    "handler.runtime.max_memory_mb is %d; the other shapes share one graph, which is slower",
                    *(len(graphs), len(self._shapes), taken, limit),
                )
                break
        return graphs

    def _compile(self, shape: Shape | None) -> Any:
        """Return an infer request of the model, for one shape, or for any."""
        model = self._model
        if shape is not None:
            model = model.clone()  # it shares the weights
            model.reshape({item.any_name: _fixed(item.partial_shape, shape) for item in model.inputs})
        return self._core.compile_model(model, "CPU", properties(self._config, self._threads)).create_infer_request()


def properties(config: RuntimeConfig, threads: int) -> dict[str, Any]:
    """Return what keeps OpenVINO within a worker's share: its threads, one call at a time, no binding of its own.

    The precision is always said: of its own accord OpenVINO computes fp32 models in bf16 where the CPU can.
    """
    floats = config.float_precision if config.precision == "int8" else config.precision
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if floats == "bf16" else "f32",
    }


def _fixed(partial: Any, shape: Shape) -> list[int]:
    """Return a shape with its open axes closed: the first has the rows, the second the padded length."""
    sizes = [dimension.get_length() if dimension.is_static else None for dimension in partial]
    return [size if size is not None else shape[axis] for axis, size in enumerate(sizes)]


def _open_table(config: RuntimeConfig, files: ModelFiles) -> Array | None:
    """Map the embedding table into memory: all graphs and all workers share its pages."""
    if config.embedding_file is None:
        return None
    path = files.model_dir / config.embedding_file
    try:
        table: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"handler.runtime.embedding_file {path.name} cannot be read: {error}") from error
    return table


def private_bytes() -> int:
    """Return the memory that this process has for itself; weights mapped from a file are not."""
    return int(psutil.Process().memory_full_info().uss)
