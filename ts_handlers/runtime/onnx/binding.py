"""ONNX Runtime on a device: inputs and outputs in its memory, in buffers that are kept between calls of the same shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from ts_handlers.shapes import Array

MAX_SHAPES = 16
"""Shapes of calls whose buffers are kept; the one that was not used for longest makes room."""

Shapes = tuple[tuple[int, ...], ...]


class BoundCalls:
    """Calls of a session through IO binding; one at a time.

    An input is copied into the buffer that the last call of these shapes had. Outputs whose shapes follow from the inputs'
    are written into kept buffers, too; others (how many boxes a detector finds, say) get new ones from the device's arena.

    Args:
        session: The session.
        device_type: `cuda`; `cpu` works as well, and gains nothing.
        device_id: Number of the device.
    """

    def __init__(self, session: ort.InferenceSession, device_type: str, device_id: int) -> None:
        self._session, self._device = session, (device_type, device_id)
        self._kept: OrderedDict[Shapes, _Buffers] = OrderedDict()
        known = {axis for item in session.get_inputs() for axis in item.shape if isinstance(axis, str)}
        self._output_names = [item.name for item in session.get_outputs()]
        self._has_fixed_outputs = all(
            isinstance(axis, int) or axis in known for item in session.get_outputs() for axis in item.shape
        )

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run one batch; return the outputs in the model's order, in the CPU's memory."""
        shapes = tuple(array.shape for array in feed.values())
        buffers = self._kept.pop(shapes, None) or _Buffers(self._session, feed, self._device)
        self._kept[shapes] = buffers
        if len(self._kept) > MAX_SHAPES:
            self._kept.popitem(last=False)
        return buffers.run(self._session, feed, self._output_names, keeps_outputs=self._has_fixed_outputs)


class _Buffers:
    """The buffers of one choice of input shapes."""

    def __init__(self, session: ort.InferenceSession, feed: Mapping[str, Array], device: tuple[str, int]) -> None:
        self._device = device
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        for name, array in feed.items():
            self._inputs[name] = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *device)
            self._binding.bind_ortvalue_input(name, self._inputs[name])
        self._has_outputs = False

    def run(
        self,
        session: ort.InferenceSession,
        feed: Mapping[str, Array],
        output_names: Sequence[str],
        *,
        keeps_outputs: bool,
    ) -> Sequence[Array]:
        for name, array in feed.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))
        if not self._has_outputs:
            for name in output_names:
                self._binding.bind_output(name, *self._device)
        session.run_with_iobinding(self._binding)
        if keeps_outputs and not self._has_outputs:
            for name, value in zip(output_names, self._binding.get_outputs(), strict=True):
                self._binding.bind_ortvalue_output(name, value)
            self._has_outputs = True
        outputs: Sequence[Array] = self._binding.copy_outputs_to_cpu()
        return outputs
