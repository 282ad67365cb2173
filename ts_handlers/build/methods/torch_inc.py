"""PyTorch, static INT8 by Intel Neural Compressor, tuned on calibration samples; compiled, so no worker needs it.

Its SmoothQuant is not used: it runs on Intel Extension for PyTorch, whose last release is for torch 2.8.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ts_handlers.batch import Array
from ts_handlers.build.compile import check_compiler, copy_model, export_model, export_module
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.held_out import HeldOut
from ts_handlers.build.methods.onnx_static import feeds
from ts_handlers.build.methods.torch_compiled import compiled_engine
from ts_handlers.build.methods.torch_torchao import check_vnni
from ts_handlers.build.steps import step
from ts_handlers.cpu import CpuShare
from ts_handlers.errors import OperatorError, first_line

ALGORITHMS = ("minmax", "kl")
"""How ranges of activations are chosen, in the order they are tried."""


def make(material: Material, folder: Path) -> Engine:
    """Tune and quantize the exported graph, export it again and compile it."""
    check_compiler()
    check_vnni(material.target, "Intel Neural Compressor")
    held_out = HeldOut(material)
    with step(material.progress, "export the model"):
        graph = export_model(material.source, copy_model(material.source)).module()
        graph.graph.eliminate_dead_code()  # a pooler that nothing reads stops the quantizer
        graph.recompile()
    with step(material.progress, f"quantize and tune, judged on {len(held_out.judged)} samples"):
        quantized, trials = _tuned(material, graph, held_out)
    with step(material.progress, "export the quantized model"):
        program = export_module(material.source, quantized)
    quantization = {"method": "inc", "activations": "uint8, one scale a tensor", "trials": trials}
    return compiled_engine(material, folder, program, "int8", quantization=quantization)


class GraphSession:
    """A graph that torch interprets, as a `runtime.Session`; rounds as INT8 does, in fp32."""

    max_parallel = 1
    frees_cpu = False

    def __init__(self, graph: torch.nn.Module, input_names: tuple[str, ...]) -> None:
        self._graph, self._input_names = graph, input_names

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch."""
        del num_parallel
        with torch.no_grad():
            outputs = self._graph(**{name: torch.from_numpy(arrays[name]) for name in self._input_names})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def resize(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own."""

    def describe(self) -> str:
        """Say what it is."""
        return "a graph"


def _tuned(
    material: Material, graph: torch.nn.Module, held_out: HeldOut
) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
    """Return the first quantized graph that meets the gate's limit on held-out samples, or the best, and what was tried."""
    names, trials = material.source.input_names, []

    def calibrate(model: torch.nn.Module) -> None:
        for feed in feeds(held_out.measured, held_out.pad_token_id):
            GraphSession(model, names).run(feed)

    def evaluate(model: torch.nn.Module) -> float:
        quality = held_out.quality(GraphSession(model, names))
        trials.append(quality.as_dict())
        return quality.mean_cosine

    with _quiet():
        from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune

        graph._exported, graph.dynamic_shapes = True, None  # type: ignore[assignment]  # noqa: SLF001  # as its export does
        settings = TuningConfig(
            config_set=[StaticQuantConfig(act_algo=algorithm) for algorithm in ALGORITHMS],
            tolerable_loss=1 - material.limits.min_mean_cosine,
            max_trials=len(ALGORITHMS),
        )
        try:
            quantized = autotune(graph, settings, eval_fn=evaluate, run_fn=calibrate)
        except Exception as error:  # it raises errors of many kinds
            raise OperatorError(f"Intel Neural Compressor cannot quantize the model: {first_line(error)}") from error
    if quantized is None:
        raise OperatorError("Intel Neural Compressor returned no model; build INT8 by another --quantizer")
    tried = [{"algorithm": name, "held_out": trial} for name, trial in zip(ALGORITHMS, trials[1:], strict=False)]
    return quantized, tried


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what it logs: the build prints its own steps."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


METHODS = (
    Method(
        "torch",
        "int8",
        "inc",
        make,
        packages=("neural_compressor",),
        needs_calibration=True,
        is_automatic=False,
        form="compiled",
    ),
)
