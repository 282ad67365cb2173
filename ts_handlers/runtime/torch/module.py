"""Eager PyTorch modules: a Hugging Face folder, or a state dict with its model file."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.runtime.session import ModelFiles

_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def load_module(config: RuntimeConfig, files: ModelFiles) -> torch.nn.Module:
    """Load the archive's module in fp32, to be evaluated.

    Raises:
        ConfigError: The archive has no module, or not one that can be told.
        RuntimeUnavailableError: It needs transformers, which is not there.
    """
    module = _load_state_dict(config, files) if files.model_file else _load_folder(files.model_dir)
    return module.eval().requires_grad_(requires_grad=False)


def accepted_inputs(module: torch.nn.Module) -> tuple[str, ...] | None:
    """Return the names forward takes, in order; None where it takes any."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters) and not hasattr(
        module, "config"
    ):
        return None
    return tuple(parameter.name for parameter in parameters)


def is_convolutional(module: torch.nn.Module) -> bool:
    """Say whether it convolves pictures: those run faster with their channels last."""
    return any(isinstance(part, torch.nn.Conv2d) for part in module.modules())


def cast_product_weights(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast once what autocast would cast at each call; the same numbers come out.

    Parameters are replaced, not changed: an embedding that shares its weight with a linear layer keeps its type.
    """
    for part in module.modules():
        if isinstance(part, (torch.nn.Linear, *_CONVOLUTIONS)):
            for name, parameter in list(part.named_parameters(recurse=False)):
                setattr(part, name, torch.nn.Parameter(parameter.to(dtype), requires_grad=False))


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
    settings = transformers.AutoConfig.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    names = settings.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise ConfigError(f"config.json names the architectures {names}; one that transformers has is needed")
    model: torch.nn.Module = getattr(transformers, names[0]).from_pretrained(model_dir, local_files_only=True)
    return model.float()  # checkpoints of half precision are kept in it by transformers


def _load_state_dict(config: RuntimeConfig, files: ModelFiles) -> torch.nn.Module:
    """Construct the model file's class and load the weights, as tensors only (`weights_only`)."""
    path = files.path(config.file)
    model = construct(files.model_dir / str(files.model_file))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = _load_tensors(path)
    model.load_state_dict(state)
    return model


def _load_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(refusal(path.name, error)) from error


def refusal(name: str, error: Exception) -> str:
    """Return what to say of a file that holds more than tensors: torch's own text advises to run what is in it."""
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    what = f"an object of the type {found[1]}" if found else "more than tensors"
    return (
        f"{name} holds {what}, which is not read: it can run code. Save the weights alone, with "
        "torch.save(model.state_dict(), PATH) or as safetensors"
    )


def construct(model_file: Path) -> torch.nn.Module:
    """Return an instance of the one module class that a Python file defines, with the weights of its constructor.

    Raises:
        ConfigError: It defines none, or several.
    """
    module = _import_file(model_file)
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, torch.nn.Module) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"{model_file.name} defines {len(classes)} torch.nn.Module classes "
            f"({', '.join(item.__name__ for item in classes)}); it must define exactly one"
        )
    model: torch.nn.Module = classes[0]()
    return model


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ts_handlers_model_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"the model file {file.name} is not a Python file of the archive")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
