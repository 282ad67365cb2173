"""Eager PyTorch: the checkpoint itself, in fp32 or bf16."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import torch

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.steps import step

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Write the checkpoint; the source stays in fp32, other engines are made from it and compared with it."""
    with step(material.progress, "write the checkpoint"):
        copy.deepcopy(material.source.model).to(_DTYPES[precision]).save_pretrained(folder)
    runtime = {"backend": "torch", "precision": precision, "target_cpu": material.target.name}
    return Engine(folder / "model.safetensors", runtime, (folder / "config.json",))


METHODS = tuple(
    Method("torch", precision, None, partial(make, precision=precision), form="eager") for precision in _DTYPES
)
