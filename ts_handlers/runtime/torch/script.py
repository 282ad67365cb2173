"""TorchScript files (.pt), torchvision's detectors among them, which take and return lists."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError, all_lines
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch.program import DETECTOR_OUTPUTS, Program, pack_detections


def is_script(path: Path) -> bool:
    """Say whether a file is TorchScript: a zip archive with code in it, which a state dict has not."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def open_script(config: RuntimeConfig, files: ModelFiles, device: torch.device) -> Program:
    """Load a TorchScript file.

    Raises:
        ConfigError: It was built for another precision.
        RuntimeUnavailableError: This torch cannot load it.
    """
    if config.precision != "fp32":
        raise ConfigError(f"handler.runtime.precision is {config.precision}; TorchScript is run as it is: set fp32")
    path = files.path(config.file)
    try:
        module = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} cannot load {path.name}: {all_lines(error)}"
        ) from error
    names = tuple(argument.name for argument in _arguments(module))
    if takes_list(module):
        return Program(ListDetector(module), ("pixel_values",), DETECTOR_OUTPUTS, device=device)
    types = dict.fromkeys(names[:1], float_type(module))
    return Program(module, names, config.output_names, config.output_keys, input_types=types, device=device)


def float_type(module: torch.nn.Module) -> torch.dtype:
    """Return the type of a script's weights, which its inputs must have; fp32 where they are of several, or none."""
    found = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else torch.float32


def takes_list(module: torch.nn.Module) -> bool:
    """Say whether a scripted module takes a list of pictures."""
    if not isinstance(module, torch.jit.ScriptModule):
        return False
    return [str(argument.type) for argument in _arguments(module)][:1] == ["List[Tensor]"]


def _arguments(module: Any) -> Sequence[Any]:
    return [argument for argument in module.forward.schema.arguments if argument.name != "self"]


class ListDetector(torch.nn.Module):
    """A detector on a batch of pictures of one size.

    Args:
        module: Takes a list of `(3, height, width)`; returns a list of {"boxes", "labels", "scores"}, or, scripted, a pair
            of losses and that.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> dict[str, torch.Tensor]:
        """Return `DETECTOR_OUTPUTS`."""
        del return_dict
        outputs = self.module(list(pixel_values))
        return pack_detections(outputs[1] if isinstance(outputs, tuple) else outputs)
