"""Intel Extension for PyTorch: the checkpoint itself; the worker optimizes it for its CPU when it loads it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods import torch_eager


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Write the checkpoint in fp32, which the extension casts where it gains."""
    engine = torch_eager.make(material, folder, precision="fp32")
    return Engine(
        engine.serialized_file, {**engine.runtime, "backend": "ipex", "precision": precision}, engine.extra_files
    )


METHODS = tuple(
    Method("ipex", precision, None, partial(make, precision=precision), packages=("intel_extension_for_pytorch",))
    for precision in ("fp32", "bf16")
)
