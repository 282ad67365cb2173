"""Eager PyTorch sessions: a Hugging Face folder, or a state dict with its model file."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ts_handlers.batch import Array
from ts_handlers.config import RuntimeConfig
from ts_handlers.cpu import CpuShare
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.runtime.session import ModelFiles

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchSession:
    """A PyTorch module in eager mode, run under inference_mode."""

    max_parallel = 1  # torch spreads a call over its threads, and each calling thread would start as many

    def __init__(self, config: RuntimeConfig, files: ModelFiles) -> None:
        if config.precision not in _DTYPES:
            raise ConfigError(
                f"handler.runtime.precision is {config.precision}; the torch backend runs {' or '.join(_DTYPES)}"
            )
        self._device = _device(files.gpu_id)
        self._precision = config.precision
        self._output_names = config.output_names
        module = _load_state_dict(config, files) if files.model_file else _load_folder(files.model_dir)
        self._module = module.to(self._device, _DTYPES[config.precision]).eval()
        self._accepted = _accepted_inputs(self._module)

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch; the module's forward decides which arrays are fed."""
        del num_parallel
        names = [name for name in arrays if self._accepted is None or name in self._accepted]
        with torch.inference_mode():
            outputs = self._module(**{name: torch.from_numpy(arrays[name]).to(self._device) for name in names})
        return {name: _to_numpy(tensor) for name, tensor in self._named(outputs).items()}

    def resize(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own, and have been changed."""

    def describe(self) -> str:
        """Say the version, the device and the precision."""
        return f"torch {torch.__version__} on {self._device}, {self._precision}"

    def _named(self, outputs: Any) -> dict[str, torch.Tensor]:
        if isinstance(outputs, Mapping):
            return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        if len(values) != len(self._output_names):
            raise ConfigError(
                f"the model returns {len(values)} outputs and handler.runtime.output_names names "
                f"{len(self._output_names)}; name each"
            )
        return dict(zip(self._output_names, values, strict=True))


def _device(gpu_id: int | None) -> torch.device:
    if gpu_id is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        logger.warning("GPU %d is not used: torch finds no CUDA device; running on the CPU", gpu_id)
        return torch.device("cpu")
    return torch.device("cuda", gpu_id)


def _load_folder(model_dir: Path) -> torch.nn.Module:
    """Load a folder that `save_pretrained` wrote, by the class its config.json names."""
    if not (model_dir / "config.json").is_file():
        raise ConfigError("the archive has neither a model file nor a config.json; the torch backend needs one of them")
    try:
        import transformers  # only this kind of archive needs it
    except ImportError as error:
        raise RuntimeUnavailableError(
            "a Hugging Face folder in the torch backend needs transformers in the serving image; install it, or build "
            "for the onnx backend"
        ) from error
    settings = transformers.AutoConfig.from_pretrained(model_dir, local_files_only=True)
    names = settings.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise ConfigError(f"config.json names the architectures {names}; one that transformers has is needed")
    model: torch.nn.Module = getattr(transformers, names[0]).from_pretrained(model_dir, local_files_only=True)
    return model


def _load_state_dict(config: RuntimeConfig, files: ModelFiles) -> torch.nn.Module:
    """Construct the one module class of the model file and load the weights, as tensors only (`weights_only`)."""
    path = files.path(config.file)
    module = _import_file(files.model_dir / str(files.model_file))
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, torch.nn.Module) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"{files.model_file} defines {len(classes)} torch.nn.Module classes "
            f"({', '.join(item.__name__ for item in classes)}); it must define exactly one"
        )
    model: torch.nn.Module = classes[0]()
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ts_handlers_model_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"the model file {file.name} is not a Python file of the archive")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _accepted_inputs(module: torch.nn.Module) -> frozenset[str] | None:
    """Return the names forward takes; None where it takes any."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters) and not hasattr(
        module, "config"
    ):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _to_numpy(tensor: torch.Tensor) -> Array:
    if tensor.is_floating_point():
        tensor = tensor.float()
    array: Array = np.asarray(tensor.cpu().numpy())
    return array
