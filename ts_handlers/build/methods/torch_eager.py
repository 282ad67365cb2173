"""Eager PyTorch: the checkpoint itself, in fp32 or bf16."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.steps import step

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Write the checkpoint."""
    model = material.source.model
    with step(material.progress, "write the checkpoint"):
        model.to(_DTYPES[precision]).save_pretrained(folder)
        model.to(torch.float32)
    runtime = {"backend": "torch", "precision": precision}
    return Engine(folder / "model.safetensors", runtime, (folder / "config.json",))


METHODS = tuple(
    Method("torch", precision, None, partial(make, precision=precision), form="eager") for precision in _DTYPES
)
