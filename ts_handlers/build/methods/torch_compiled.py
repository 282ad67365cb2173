"""PyTorch, compiled ahead of time: a package of machine code, in fp32, bf16, or INT8 by torchao or Neural Compressor.

A worker needs torch alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build.compile import check_compiler, compile_package, copy_model, export_model, export_module
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.held_out import HeldOut
from ts_handlers.build.methods.feeds import feeds
from ts_handlers.build.steps import step
from ts_handlers.build.target import TargetCpu
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.runtime.torch.module import cast_product_weights

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Export and compile the checkpoint; in bf16 as the eager engine computes it."""
    if precision == "bf16" and not material.target.has_bf16:
        raise OperatorError(
            f"{material.target.name} does not multiply bf16, and compiled code has nothing that emulates it on every such "
            "CPU; build fp32, or bf16 with --form eager"
        )
    check(material.target)
    model, autocast = copy_model(material.source), _AUTOCAST[precision]
    if autocast is not None:
        cast_product_weights(model, autocast)
    with step(material.progress, "export the model"):
        program = export_model(material.source, model, autocast)
    return _compiled(material, folder, program, precision)


def make_torchao(material: Material, folder: Path) -> Engine:
    """Quantize the linear layers: int8 weights, a scale for each token's activations. No worker needs torchao."""
    check(material.target, int8_by="torchao")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy_model(material.source)
    with step(material.progress, "quantize linear layers to INT8"):
        num_layers = flatten_linear(model.base_model)
        quantize_(model, Int8DynamicActivationInt8WeightConfig(), lambda _, name: name.endswith(".linear"))
    if not num_layers:
        raise OperatorError("there is nothing to quantize: the encoder has no linear layers")
    with step(material.progress, "export the model"):
        program = export_model(material.source, model)
    quantization = {"method": "torchao", "activations": "int8, a scale for each token", "linear_layers": num_layers}
    return _compiled(material, folder, program, "int8", quantization=quantization)


def make_inc(material: Material, folder: Path) -> Engine:
    """Quantize the exported graph by the extremes of its activations; export it again. No worker needs the library.

    Its SmoothQuant is not used: it runs on Intel Extension for PyTorch, whose last release is for torch 2.8.
    """
    check(material.target, int8_by="Intel Neural Compressor")
    samples, names = HeldOut(material).measured, material.source.input_names
    with step(material.progress, "export the model"):
        graph = export_model(material.source, copy_model(material.source)).module()
        graph.graph.eliminate_dead_code()  # a pooler that nothing reads stops the quantizer
        graph.recompile()
    with step(material.progress, f"quantize on {len(samples)} samples"), _quiet(), torch.no_grad():
        from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

        graph._exported, graph.dynamic_shapes = True, None  # type: ignore[assignment]  # noqa: SLF001  # as its export does
        try:
            prepared = prepare(graph, StaticQuantConfig())
            for feed in feeds(samples, material.source):
                prepared(**{name: torch.from_numpy(feed[name]) for name in names})
            quantized = convert(prepared)
        except Exception as error:  # it raises errors of many kinds
            raise OperatorError(f"Intel Neural Compressor cannot quantize the model: {first_line(error)}") from error
    with step(material.progress, "export the quantized model"):
        program = export_module(material.source, quantized)
    quantization = {"method": "inc", "activations": "uint8, one scale a tensor", "calibration_samples": len(samples)}
    return _compiled(material, folder, program, "int8", quantization=quantization)


def check(target: TargetCpu, int8_by: str | None = None) -> None:
    """Refuse to begin what cannot be compiled or served.

    Args:
        target: The CPU that will serve.
        int8_by: What makes 8-bit weights.

    Raises:
        OperatorError: There is no C++ compiler, or the target's sums of 8-bit products saturate.
    """
    if int8_by is not None and not target.has_vnni:
        raise OperatorError(
            f"{int8_by} makes weights of 8 bits, and sums of their products saturate on {target.name}, which has no VNNI; "
            "build INT8 for the onnx backend"
        )
    check_compiler()


class _Flat(torch.nn.Module):
    """A linear layer on `(tokens, n)`.

    torchao compares the size of each axis with 1 while it is traced, which would exclude a batch of one text.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat: torch.Tensor = self.linear(hidden.reshape(-1, hidden.shape[-1]))
        return flat.reshape(*hidden.shape[:-1], flat.shape[-1])


def flatten_linear(encoder: torch.nn.Module) -> int:
    """Wrap the linear layers of an encoder and count them; its pooler is left, which reads one token a text."""
    found = [
        (name, part)
        for name, part in encoder.named_modules()
        if isinstance(part, torch.nn.Linear) and "pooler" not in name.split(".")
    ]
    for name, part in found:
        parent, _, leaf = name.rpartition(".")
        setattr(encoder.get_submodule(parent), leaf, _Flat(part))
    return len(found)


def _compiled(
    material: Material, folder: Path, program: torch.export.ExportedProgram, precision: str, **details: Any
) -> Engine:
    """Compile a graph into the engine's package."""
    path = folder / "model.pt2"
    with step(material.progress, f"compile for {material.target.name}"):
        done = compile_package(program, path, material.target, material.work)
    runtime = {"backend": "torch", "precision": precision, "target_cpu": material.target.name}
    return Engine(path, runtime, details={"compiled": done, **details})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what a library logs: the build prints its own steps."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


METHODS = (
    *(Method("torch", precision, None, partial(make, precision=precision), form="compiled") for precision in _AUTOCAST),
    Method("torch", "int8", "torchao", make_torchao, packages=("torchao",), form="compiled"),
    Method(
        "torch",
        "int8",
        "inc",
        make_inc,
        packages=("neural_compressor",),
        needs_calibration=True,
        is_automatic=False,
        form="compiled",
    ),
)
