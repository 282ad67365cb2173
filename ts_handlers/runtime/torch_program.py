"""What the torch backends run: a callable on tensors, fed and read by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ts_handlers.batch import Array
from ts_handlers.errors import ConfigError

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded model.

    Attributes:
        call: Takes tensors by name; returns a mapping, a tuple or a tensor.
        input_names: What it takes; None: anything.
        required_names: What it cannot do without, checked before it is called.
        output_names: Names for what it returns without names, in order.
        device: Where its weights are.
        autocast: Type that matrix products are computed in; None: that of their operands.
        memory_format: Of inputs with four axes.
    """

    call: Callable[..., Any]
    input_names: Collection[str] | None
    output_names: tuple[str, ...]
    required_names: tuple[str, ...] = ()
    device: torch.device = _CPU
    autocast: torch.dtype | None = None
    memory_format: torch.memory_format = torch.contiguous_format

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch.

        Raises:
            ConfigError: An input is missing, or outputs have no names.
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
            outputs = self.call(**{name: self._tensor(arrays[name]) for name in names})
        return {name: _to_numpy(tensor) for name, tensor in self._named(outputs).items()}

    def _under_its_name(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Call a single array what the model calls its single input: of one there is no doubt."""
        if len(arrays) == 1 and self.input_names is not None and len(self.input_names) == 1:
            return dict(zip(self.input_names, arrays.values(), strict=True))
        return arrays

    def _tensor(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # copied by the GPU from pages that stay, which torch keeps for the next call
            tensor = tensor.pin_memory()
        tensor = tensor.to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor

    def _named(self, outputs: Any) -> dict[str, torch.Tensor]:
        if isinstance(outputs, Mapping):
            return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        if len(values) != len(self.output_names):
            raise ConfigError(
                f"the model returns {len(values)} outputs and handler.runtime.output_names names "
                f"{len(self.output_names)}; name each"
            )
        return dict(zip(self.output_names, values, strict=True))


def _to_numpy(tensor: torch.Tensor) -> Array:
    if tensor.is_floating_point():
        tensor = tensor.float()
    array: Array = np.asarray(tensor.contiguous().cpu().numpy())
    return array
