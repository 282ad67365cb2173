"""Models of images that are not transformers' own, in its calling convention: inputs by name, outputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ts_handlers.build.image_files.scale import OwnScale, scale_of_module
from ts_handlers.build.image_files.weights import State, find_weights
from ts_handlers.build.image_outputs.probe import InputForm, Outputs, Run
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.runtime.torch.module import construct
from ts_handlers.runtime.torch.package import read_exported
from ts_handlers.runtime.torch.program import named_tensors, pick
from ts_handlers.runtime.torch.script import ListDetector, float_type, takes_list
from ts_handlers.shapes import Array

_CAST = {torch.float16: ".half()", torch.float64: ".double()"}


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A module as it was read from a file.

    Attributes:
        path: The file.
        module: Takes pictures by position.
        dtype: Type that it takes them in.
        shape: Axes of its input, None where any size is taken; None where the file does not say.
        state: Its weights, where they were read apart from it.
        note: What was found in the file.
    """

    path: Path
    module: torch.nn.Module
    dtype: torch.dtype = torch.float32
    shape: tuple[int | None, ...] | None = None
    state: State | None = None
    note: str = ""
    takes_mask: ClassVar[bool] = False

    @property
    def is_integer(self) -> bool:
        """Whether it takes levels from 0 to 255 as integers."""
        return not self.dtype.is_floating_point

    def runner(self, form: InputForm) -> Run:
        """Return what runs it on arrays of this form and gives all that it returns."""
        del form

        def run(values: Array) -> Outputs:
            with torch.inference_mode():
                found = named_tensors(self.module(torch.from_numpy(values).to(self.dtype)))
            return {
                name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
                for name, tensor in found.items()
            }

        return run

    def own_scale(self, form: InputForm) -> OwnScale:
        """Return what it does first to every number of a picture."""
        grey = torch.from_numpy(form.values(np.full((*form.size, 3), 128))).to(self.dtype)
        return scale_of_module(self.module, grey)

    def named(self, keys: Mapping[str, str]) -> Network:
        """Return it with the outputs of these keys alone: our name -> its own."""
        return Network(self.module, self.dtype, keys).eval()


class Network(torch.nn.Module):
    """A module that takes pixel_values by position and returns what `named_tensors` can name.

    Args:
        module: The module.
        dtype: Type that it takes pictures in.
        keys: Our name of an output -> the module's.
    """

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype, keys: Mapping[str, str]) -> None:
        super().__init__()
        self.module, self.dtype, self.keys = module, dtype, dict(keys)

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> dict[str, torch.Tensor]:
        """Return the outputs by name."""
        del return_dict
        found = named_tensors(self.module(pixel_values.to(self.dtype)))
        return pick(found, tuple(self.keys), tuple(self.keys.values()))

    def scripted(self, example: torch.Tensor) -> torch.nn.Module:
        """Return a scripted module with these outputs alone, in order: it is exported without being traced."""
        with torch.inference_mode():
            returned = self.module(example.to(self.dtype))
        holder = torch.nn.Module()
        holder.module = self.module
        script: Any = torch.jit.script(holder.eval())
        outputs = ", ".join(_part(returned, key) for key in self.keys.values())
        script.define(
            "def forward(self, pixel_values):\n"
            f"    found = self.module(pixel_values{_CAST.get(self.dtype, '')})\n"
            f"    return {outputs}\n"
        )
        module: torch.nn.Module = script
        return module


def _part(returned: Any, key: str) -> str:
    """Return the expression of one of a script's outputs."""
    if isinstance(returned, torch.Tensor):
        return "found"
    if isinstance(returned, Mapping):
        return f"found[{key!r}]"
    return f"found.{key}" if hasattr(returned, "_fields") else f"found[{key}]"


def load_state_dict(weights: Path, model_file: Path) -> TorchFile:
    """Construct the one module class of a Python file, and load its weights, in whatever form they were saved.

    Raises:
        OperatorError: The file defines none or many, or the weights are not its own.
    """
    if not model_file.is_file():
        raise OperatorError(f"--model-file {model_file} is no file; give the Python file with the model's class")
    try:
        module = construct(model_file.resolve())
    except OperatorError:
        raise
    except Exception as error:  # its constructor is somebody's code
        raise OperatorError(
            f"{model_file} cannot be imported and its class constructed without arguments: {type(error).__name__}: "
            f"{all_lines(error)}"
        ) from error
    found = find_weights(weights, module)
    try:
        module.load_state_dict(found.state)
    except RuntimeError as error:  # of other shapes
        raise OperatorError(f"{weights} does not fit {type(module).__name__}: {all_lines(error)}") from error
    return TorchFile(weights, module.eval().requires_grad_(requires_grad=False), state=found.state, note=found.note)


def load_script(path: Path) -> TorchFile:
    """Load a TorchScript file.

    Raises:
        OperatorError: It is none.
    """
    try:
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises errors of many kinds
        raise OperatorError(
            f"{path} is no TorchScript file ({all_lines(error)}); of a state dict give --model-file, too"
        ) from error
    return TorchFile(path, ListDetector(module) if takes_list(module) else module, float_type(module))


def load_exported(path: Path) -> TorchFile:
    """Load a graph of torch.export.

    Raises:
        OperatorError: It is none, or does not take one tensor.
    """
    try:
        program = read_exported(path)
        module = program.module()
    except OperatorError:
        raise
    except Exception as error:  # torch raises errors of many kinds
        raise OperatorError(f"{path} is no package of torch.export: {all_lines(error)}") from error
    arguments = program.graph_signature.user_inputs
    if len(arguments) != 1:
        raise OperatorError(f"{path} takes {len(arguments)} inputs; export a model that takes pixel_values alone")
    keywords = program.call_spec.in_spec.child(1)
    (taken,) = (node.meta["val"] for node in program.graph.nodes if node.name == arguments[0])
    shape = tuple(axis if isinstance(axis, int) else None for axis in taken.shape)
    return TorchFile(
        path, _Exported(module, keywords.context[0] if keywords.num_children else None), taken.dtype, shape
    )


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
