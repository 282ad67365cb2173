"""PyTorch, INT8 by torchao: int8 weights, a scale for each token's activations; compiled, so no worker needs torchao."""

from __future__ import annotations

from pathlib import Path

import torch

from ts_handlers.build.compile import check_compiler, copy_model, export_model
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.torch_compiled import compiled_engine
from ts_handlers.build.steps import step
from ts_handlers.build.target import TargetCpu
from ts_handlers.errors import OperatorError


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


def make(material: Material, folder: Path) -> Engine:
    """Quantize the linear layers of the encoder, export and compile."""
    check_compiler()
    check_vnni(material.target, "torchao")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy_model(material.source)
    with step(material.progress, "quantize linear layers to INT8"):
        num_layers = _flatten_linear(model.base_model)
        if not num_layers:
            raise OperatorError("there is nothing to quantize: the encoder has no linear layers")
        quantize_(model, Int8DynamicActivationInt8WeightConfig(), _is_flat)
    with step(material.progress, "export the model"):
        program = export_model(material.source, model)
    quantization = {"method": "torchao", "activations": "int8, a scale for each token", "linear_layers": num_layers}
    return compiled_engine(material, folder, program, "int8", quantization=quantization)


def check_vnni(target: TargetCpu, method: str) -> None:
    """Refuse a CPU on which sums of 8-bit products saturate.

    Raises:
        OperatorError: The target has no VNNI.
    """
    if not target.has_vnni:
        raise OperatorError(
            f"{method} makes weights of 8 bits, and sums of their products saturate on {target.name}, which has no VNNI; "
            "build INT8 for the onnx backend"
        )


def _flatten_linear(encoder: torch.nn.Module) -> int:
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


def _is_flat(module: torch.nn.Module, name: str) -> bool:
    return isinstance(module, torch.nn.Linear) and name.endswith(".linear")


METHODS = (Method("torch", "int8", "torchao", make, packages=("torchao",), form="compiled"),)
