"""Eager PyTorch: the checkpoint itself, in fp32 or bf16, or in fp16 for GPUs.

The ipex backend (Intel Extension for PyTorch) takes it too, and optimizes it for the worker's CPU when it loads it.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make(material: Material, folder: Path, *, precision: str) -> Engine:
    """Write the checkpoint; the source stays in fp32, other engines are made from it and compared with it."""
    source = material.model_source
    if isinstance(source, ImageSource) and source.form != "folder":
        return _copy(source, folder, precision)
    with step(material.progress, "write the checkpoint"):
        copy.deepcopy(source.model).to(_DTYPES[precision]).save_pretrained(folder)
    runtime = {"backend": "torch", "precision": precision, "target_cpu": material.target.name}
    return Engine(folder / "model.safetensors", runtime, (folder / "config.json",))


def make_ipex(material: Material, folder: Path, *, precision: str) -> Engine:
    """Write the checkpoint in fp32, which the extension casts where it gains."""
    engine = make(material, folder, precision="fp32")
    return replace(engine, runtime={**engine.runtime, "backend": "ipex", "precision": precision})


def _copy(source: ImageSource, folder: Path, precision: str) -> Engine:
    """Take the files as they were given; of a state dict the weights alone, under the model's own keys."""
    runtime: dict[str, Any] = {
        "backend": "torch",
        "precision": precision,
        "output_names": list(source.reading.keys),
        "output_keys": list(source.reading.keys.values()),
    }
    if source.form == "onnx":
        raise OperatorError("torch does not run ONNX files; use --backend onnx")
    if source.form != "state_dict" and precision != "fp32":
        raise OperatorError(f"a {source.file.suffix} file is run as it is, in fp32; give a state dict for {precision}")
    if source.model_file is None or source.state is None:
        model = folder / source.file.name
        shutil.copyfile(source.file, model)
        return Engine(model, runtime)
    model = folder / f"{source.file.stem}.pt"
    torch.save(dict(source.state), model)
    model_file = folder / source.model_file.name
    shutil.copyfile(source.model_file, model_file)
    return Engine(model, runtime, model_file=model_file)


METHODS = tuple(
    Method(
        "torch",
        precision,
        None,
        partial(make, precision=precision),
        form="eager",
        takes_images=True,
        is_automatic=precision != "fp16",  # what is tried is timed here, on the CPU
    )
    for precision in _DTYPES
)

IPEX = tuple(
    Method("ipex", precision, None, partial(make_ipex, precision=precision), packages=("intel_extension_for_pytorch",))
    for precision in ("fp32", "bf16")
)
