"""Models of images that are not transformers' own, in its calling convention: inputs by name, outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ts_handlers.errors import OperatorError, first_line


class Network(torch.nn.Module):
    """A module that takes pixel_values by position and returns a tensor, a tuple or a mapping.

    Args:
        module: The module.
        output_names: Names of what it returns, in order; of a mapping its own keys are looked for.
    """

    def __init__(self, module: torch.nn.Module, output_names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.output_names = tuple(output_names)

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> dict[str, torch.Tensor]:
        """Return the outputs by name."""
        del return_dict
        return name_outputs(self.module(pixel_values), self.output_names)


def name_outputs(outputs: Any, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what a module gave under the task's names.

    A mapping has them, or, as torchvision's segmentation models do, one of `out`. Of two tensors without names the one whose
    last axis is 4 is pred_boxes.

    Raises:
        OperatorError: It gave something else.
    """
    if isinstance(outputs, Mapping):
        if len(names) == 1 and "out" in outputs:
            return {names[0]: outputs["out"]}
        if all(name in outputs for name in names):
            return {name: outputs[name] for name in names}
        raise OperatorError(f"the model returns {', '.join(map(str, outputs))}; {' and '.join(names)} are needed")
    values = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if len(values) != len(names) or not all(isinstance(value, torch.Tensor) for value in values):
        raise OperatorError(f"the model returns {len(values)} outputs; {' and '.join(names)} are needed: wrap it so")
    if tuple(names) == ("logits", "pred_boxes") and values[0].shape[-1] == 4 != values[1].shape[-1]:
        values.reverse()
    return dict(zip(names, values, strict=True))


def load_state_dict(weights: Path, model_file: Path) -> torch.nn.Module:
    """Construct the one module class of a Python file and load weights into it, as a worker does.

    Raises:
        OperatorError: The file defines none or many, or the weights are not its own.
    """
    from ts_handlers.config import RuntimeConfig
    from ts_handlers.runtime import ModelFiles
    from ts_handlers.runtime.torch_module import load_module

    if not model_file.is_file():
        raise OperatorError(f"--model-file {model_file} is no file; give the Python file with the model's class")
    files = ModelFiles(model_file.parent, str(weights.resolve()), model_file.name)
    try:
        return load_module(RuntimeConfig(backend="torch"), files)
    except OperatorError:
        raise
    except Exception as error:  # its constructor is somebody's code, and weights can be broken in many ways
        raise OperatorError(f"{weights} cannot be loaded with {model_file}: {first_line(error)}") from error


def load_script(path: Path) -> torch.nn.Module:
    """Load a TorchScript file.

    Raises:
        OperatorError: It is none.
    """
    try:
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises errors of many kinds
        raise OperatorError(
            f"{path} is no TorchScript file ({first_line(error)}); of a state dict give --model-file, too"
        ) from error
    return module


def load_exported(path: Path) -> torch.nn.Module:
    """Load a graph of torch.export.

    Raises:
        OperatorError: It is none, or does not take one tensor.
    """
    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:  # torch raises errors of many kinds
        raise OperatorError(f"{path} is no package of torch.export: {first_line(error)}") from error
    arguments = program.graph_signature.user_inputs
    if len(arguments) != 1:
        raise OperatorError(f"{path} takes {len(arguments)} inputs; export a model that takes pixel_values alone")
    keywords = program.call_spec.in_spec.child(1)
    return _Exported(module, keywords.context[0] if keywords.num_children else None)


class _Exported(torch.nn.Module):
    """A graph of torch.export as a module that takes pixel_values by position.

    Args:
        module: The graph; it has no mode but that it was exported in.
        keyword: What it calls its input; None where it takes it by position.
    """

    def __init__(self, module: torch.nn.Module, keyword: str | None) -> None:
        super().__init__()
        self.module, self.keyword = module, keyword

    def train(self, mode: bool = True) -> _Exported:
        """Do nothing: the graph refuses to be asked."""
        del mode
        return self

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.module(pixel_values) if self.keyword is None else self.module(**{self.keyword: pixel_values})
