"""PyTorch sessions: eager modules, and packages (.pt2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError
from ts_handlers.machine import CpuShare
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch.module import accepted_inputs, cast_product_weights, is_convolutional, load_module
from ts_handlers.runtime.torch.package import is_package, open_package
from ts_handlers.runtime.torch.program import Program
from ts_handlers.runtime.torch.script import is_script, open_script
from ts_handlers.shapes import Array

logger = logging.getLogger(__name__)

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchSession:
    """A PyTorch model, run under inference_mode: a package where the serialized file is one, else an eager module."""

    max_parallel = 1  # torch spreads a call over its threads, and each calling thread would start as many

    def __init__(self, config: RuntimeConfig, files: ModelFiles) -> None:
        device = find_device(files.gpu_id)
        if is_package(config.file or files.serialized_file):
            self._program, self._form = open_package(config, files, device)
        elif files.model_file is None and is_script(files.model_dir / str(config.file or files.serialized_file)):
            self._program, self._form = open_script(config, files, device), f"{config.precision}, TorchScript"
        else:
            self._program, self._form = open_module(config, files, device), config.precision

    @property
    def runs_on_device(self) -> bool:
        """Whether it computes on a GPU."""
        return self._program.device.type != "cpu"

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch; the model decides which arrays are fed."""
        del num_parallel
        return self._program.run(arrays)

    def change_threads(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own, and have been changed."""

    def describe(self) -> str:
        """Say the version, the device, the precision and the form."""
        return f"torch {torch.__version__} on {self._program.device}, {self._form}"


def open_module(config: RuntimeConfig, files: ModelFiles, device: torch.device) -> Program:
    """Load an eager module.

    bf16 and fp16 are autocast's: matrix products in them; normalizations, softmax and the residual stream in fp32.

    Raises:
        ConfigError: A precision that eager modules do not have, or a module that cannot be loaded.
    """
    if config.precision not in _AUTOCAST:
        raise ConfigError(
            f"handler.runtime.precision is {config.precision}; the torch backend runs a module in {', '.join(_AUTOCAST)}, "
            "and other precisions as a package (.pt2)"
        )
    if config.precision == "fp16" and device.type == "cpu":
        logger.warning("fp16 is for GPUs: on the CPU it is right, and slow; build bf16 or int8 for this machine")
    module = load_module(config, files)
    autocast = _AUTOCAST[config.precision]
    if autocast is not None:
        cast_product_weights(module, autocast)
    memory_format = torch.channels_last if is_convolutional(module) else torch.contiguous_format
    module.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stubs leave it out
    return Program(
        module,
        accepted_inputs(module),
        config.output_names,
        config.output_keys,
        device=device,
        autocast=autocast,
        memory_format=memory_format,
    )


def find_device(gpu_id: int | None) -> torch.device:
    """Return the worker's GPU, or the CPU where torch has none."""
    if gpu_id is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        logger.warning("GPU %d is not used: torch finds no CUDA device; running on the CPU", gpu_id)
        return torch.device("cpu")
    return torch.device("cuda", gpu_id)
