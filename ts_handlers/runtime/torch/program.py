"""What the torch backends run: a callable on tensors, fed and read by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ts_handlers.errors import ConfigError
from ts_handlers.runtime.feeds import feed_as
from ts_handlers.shapes import Array

DETECTOR_OUTPUTS = ("boxes", "labels", "scores", "num_detections")
"""What torchvision's detectors' lists become: arrays `(batch, most, ...)`, and how many of each row count."""

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded model.

    Attributes:
        call: Takes tensors by name; returns a mapping, a dataclass, a tuple or a tensor, or a detector's list.
        input_names: What it takes, in order; None: anything.
        output_names: Names for what it returns without names, in order.
        output_keys: Where each of output_names is found, as `named_tensors` calls it; empty: see output_names.
        required_names: What it cannot do without, checked before it is called.
        input_types: Types of inputs that it takes no others of.
        device: Where its weights are.
        autocast: Type that matrix products are computed in; None: that of their operands.
        memory_format: Of inputs with four axes.
    """

    call: Callable[..., Any]
    input_names: Sequence[str] | None
    output_names: tuple[str, ...]
    output_keys: tuple[str, ...] = ()
    required_names: tuple[str, ...] = ()
    input_types: Mapping[str, torch.dtype] = field(default_factory=dict)
    device: torch.device = _CPU
    autocast: torch.dtype | None = None
    memory_format: torch.memory_format = torch.contiguous_format

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch.

        Raises:
            ConfigError: An input is missing, or outputs have no names.
            RequestError: 400, floats for a model that takes whole numbers.
        """
        arrays = self._under_its_name(arrays)
        for name in self.required_names:
            if name not in arrays:
                raise ConfigError(
                    f"the model takes an input {name!r} that the handler does not make; it makes: {', '.join(arrays)}"
                )
        names = [name for name in arrays if self.input_names is None or name in self.input_names]
        precision = torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()
        with torch.inference_mode(), precision:
            outputs = self.call(**{name: self._tensor(name, arrays[name]) for name in names})
        return {name: _to_numpy(tensor) for name, tensor in self._named(outputs).items()}

    def _under_its_name(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Call a single array what the model calls its first input, where it has none of that name."""
        if len(arrays) == 1 and self.input_names and not set(arrays) & set(self.input_names):
            return dict(zip(self.input_names, arrays.values(), strict=False))
        return arrays

    def _tensor(self, name: str, array: Array) -> torch.Tensor:
        dtype = self.input_types.get(name)
        if dtype is not None and not dtype.is_floating_point:
            array = feed_as(name, array, torch.empty(0, dtype=dtype).numpy().dtype)
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # copied by the GPU from pages that stay, which torch keeps for the next call
            tensor = tensor.pin_memory()
        tensor = tensor.to(self.device, dtype=dtype, non_blocking=True)
        return tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor

    def _named(self, outputs: Any) -> Mapping[str, torch.Tensor]:
        found = named_tensors(outputs)
        if self.output_keys:
            return pick(found, self.output_names, self.output_keys)
        if not _is_numbered(outputs):
            return found
        if len(found) != len(self.output_names):
            raise ConfigError(
                f"the model returns {len(found)} outputs and handler.runtime.output_names names "
                f"{len(self.output_names)}; name each"
            )
        return dict(zip(self.output_names, found.values(), strict=True))


def named_tensors(outputs: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of what a model gave by their names: keys, fields, or numbers where there are no names.

    A detector's list, {"boxes", "labels", "scores"} for each picture, becomes `DETECTOR_OUTPUTS`.
    """
    if isinstance(outputs, torch.Tensor):
        return {"0": outputs}
    if _is_detections(outputs):
        return pack_detections(outputs)
    if isinstance(outputs, Mapping):
        items: Any = outputs.items()
    elif dataclasses.is_dataclass(outputs):
        items = ((item.name, getattr(outputs, item.name)) for item in dataclasses.fields(outputs))
    elif isinstance(outputs, (tuple, list)):
        items = zip(getattr(outputs, "_fields", map(str, range(len(outputs)))), outputs, strict=True)
    else:
        items = ()
    return {str(name): value for name, value in items if isinstance(value, torch.Tensor)}


def pick(found: Mapping[str, torch.Tensor], names: Sequence[str], keys: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return some of a model's outputs under other names.

    Raises:
        ConfigError: There are none at these keys.
    """
    missing = [key for key in keys if key not in found]
    if missing or len(names) != len(keys):
        raise ConfigError(
            f"handler.runtime.output_keys are {', '.join(keys)} for the names {', '.join(names)}, and the model returns "
            f"{', '.join(found) or 'no tensor'}; name what it returns"
        )
    return {name: found[key] for name, key in zip(names, keys, strict=True)}


def pack_detections(found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put the detections of each picture into arrays of one length, zeros past their end."""
    packed: dict[str, torch.Tensor] = {
        name: torch.nn.utils.rnn.pad_sequence([item[name] for item in found], batch_first=True)
        for name in ("boxes", "labels", "scores")
    }
    packed["num_detections"] = torch.tensor([len(item["scores"]) for item in found])
    return packed


def _is_detections(outputs: Any) -> bool:
    return (
        isinstance(outputs, list)
        and bool(outputs)
        and all(isinstance(item, Mapping) and {"boxes", "labels", "scores"} <= set(item) for item in outputs)
    )


def _is_numbered(outputs: Any) -> bool:
    return isinstance(outputs, torch.Tensor) or (isinstance(outputs, (tuple, list)) and not _is_detections(outputs))


def _to_numpy(tensor: torch.Tensor) -> Array:
    if tensor.is_floating_point():
        tensor = tensor.float()
    array: Array = np.asarray(tensor.contiguous().cpu().numpy())
    return array
