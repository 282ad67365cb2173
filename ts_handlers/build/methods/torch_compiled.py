"""PyTorch, compiled ahead of time: a package of machine code, in fp32 or bf16. A worker needs torch alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build.compile import check_compiler, compile_package, copy_model, export_model
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError
from ts_handlers.runtime.torch_module import cast_product_weights

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Export and compile the checkpoint; in bf16 as the eager engine computes it."""
    check_compiler()
    if precision == "bf16" and not material.target.has_bf16:
        raise OperatorError(
            f"{material.target.name} does not multiply bf16, and compiled code has nothing that emulates it on every such "
            "CPU; build fp32, or bf16 with --form eager"
        )
    source, autocast = material.source, _AUTOCAST[precision]
    with step(material.progress, "export the model"):
        model = copy_model(source)
        if autocast is not None:
            cast_product_weights(model, autocast)
        program = export_model(source, model, autocast)
    return compiled_engine(material, folder, program, precision)


def compiled_engine(
    material: Material, folder: Path, program: torch.export.ExportedProgram, precision: str, **details: Any
) -> Engine:
    """Compile a graph into the engine's package."""
    path = folder / "model.pt2"
    with step(material.progress, f"compile for {material.target.name}"):
        done = compile_package(program, path, material.target, material.work / "inductor")
    runtime = {"backend": "torch", "precision": precision, "target_cpu": material.target.name}
    return Engine(path, runtime, details={"compiled": done, **details})


METHODS = tuple(
    Method("torch", precision, None, partial(make, precision=precision), form="compiled") for precision in _AUTOCAST
)
