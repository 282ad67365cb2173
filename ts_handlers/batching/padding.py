"""Padded arrays, and the way back to sequences and images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.errors import InferenceError
from ts_handlers.shapes import Array, Size


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One unpadded sequence, or image, for the model; an example can need several (windows of a long context, say).

    Attributes:
        arrays: Named inputs, each `(seq_len, ...)`; of an image, each `(..., height, width)` where it may be padded.
        length: seq_len, in tokens; an image has none.
        source: What `format` needs to read the outputs (offsets, tokens); never fed.
        size: (height, width) of an image; None for a sequence.
    """

    arrays: Mapping[str, Array]
    length: int = 0
    source: Any = None
    size: Size | None = None

    @property
    def num_positions(self) -> int:
        """Tokens of a sequence, or pixels of an image."""
        return self.length if self.size is None else self.size[0] * self.size[1]

    def describe_size(self) -> str:
        """Say how large it is."""
        return f"{self.num_positions} {'tokens' if self.size is None else 'pixels'}"


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """What one model call is fed.

    Attributes:
        arrays: Named inputs, each `(batch, padded_length, ...)`; of images `(batch, ..., height, width)`.
        lengths: Tokens of each sequence; 0 for an image.
        padded_length: Tokens of each sequence, padding included.
        batch_size: First axis of each array, copies included that only fill the call.
    """

    arrays: dict[str, Array]
    lengths: tuple[int, ...]
    padded_length: int
    batch_size: int


def pad_batch(inputs: Sequence[ModelInput], plan: BatchPlan, pad_values: Mapping[str, int]) -> PaddedBatch:
    """Put the sequences, or images, of one call into arrays of one length, or size.

    Args:
        inputs: All of them; the plan names those of this call.
        plan: Which, and to what length or size.
        pad_values: Fill of each named input; 0 where it has none.

    Raises:
        InferenceError: 500, they do not have the same arrays, or one is not of the length or size it says.
    """
    chosen = [inputs[index] for index in plan.indices]
    if len({frozenset(item.arrays) for item in chosen}) != 1:
        raise InferenceError("transform returned inputs with different names; each must have the same arrays")
    if plan.padded_size is not None:
        return _pad_images(chosen, plan, plan.padded_size, pad_values)
    for name in chosen[0].arrays:
        for item in chosen:
            if len(item.arrays[name]) != item.length:
                raise InferenceError(f"transform says {item.length} tokens, and {name} has {len(item.arrays[name])}")
    arrays = {name: _padded_sequences(name, chosen, plan, pad_values.get(name, 0)) for name in chosen[0].arrays}
    return PaddedBatch(arrays, tuple(item.length for item in chosen), plan.padded_length, plan.batch_size)


def _padded_sequences(name: str, chosen: Sequence[ModelInput], plan: BatchPlan, fill: int) -> Array:
    first = chosen[0].arrays[name]
    if plan.batch_size == 1 and len(first) == plan.padded_length:
        return first[None]
    array = np.full((plan.batch_size, plan.padded_length, *first.shape[1:]), fill, dtype=first.dtype)
    for index, item in enumerate(chosen):
        array[index, : item.length] = item.arrays[name]
    array[len(chosen) :] = array[len(chosen) - 1]
    return array


def _pad_images(
    chosen: Sequence[ModelInput], plan: BatchPlan, size: Size, pad_values: Mapping[str, int]
) -> PaddedBatch:
    """Stack images; those smaller than the call's size are padded at their right and bottom."""
    filled = [*chosen, *[chosen[-1]] * plan.num_fillers]
    if all(item.size == size for item in chosen):
        arrays = {name: _stacked(name, [item.arrays[name] for item in filled]) for name in chosen[0].arrays}
    else:
        arrays = {name: _padded(name, filled, size, pad_values.get(name, 0)) for name in chosen[0].arrays}
    return PaddedBatch(arrays, tuple(item.length for item in chosen), plan.padded_length, plan.batch_size)


def _stacked(name: str, arrays: Sequence[Array]) -> Array:
    if len({array.shape for array in arrays}) != 1:
        shapes = sorted({array.shape for array in arrays})
        raise InferenceError(f"transform says the images are of one size, and {name} has the shapes {shapes}")
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _padded(name: str, images: Sequence[ModelInput], size: Size, fill: int) -> Array:
    first = images[0].arrays[name]
    array = np.full((len(images), *first.shape[:-2], *size), fill, dtype=first.dtype)
    for index, item in enumerate(images):
        values = item.arrays[name]
        if values.shape[-2:] != item.size:
            raise InferenceError(f"transform says {item.size}, and {name} is of the shape {values.shape}")
        height, width = values.shape[-2:]
        array[index, ..., :height, :width] = values
    return array


def split_batch(
    outputs: Mapping[str, Array], batch: PaddedBatch, sequence_outputs: Collection[str]
) -> list[dict[str, Array]]:
    """Give each sequence its own outputs, without padding.

    Args:
        outputs: Named outputs of a call, each `(batch, ...)`.
        batch: The call.
        sequence_outputs: Those with the sequence as their second axis, `(batch, padded_length, ...)`.

    Raises:
        InferenceError: 500, an output is not of that shape, so that requests could be mixed up.
    """
    for name, array in outputs.items():
        expected = (batch.batch_size, batch.padded_length) if name in sequence_outputs else (batch.batch_size,)
        if array.shape[: len(expected)] != expected:
            raise InferenceError(
                f"the model's output {name} has the shape {array.shape}; it must begin with {expected}"
            )
    return [
        {name: array[index, :length] if name in sequence_outputs else array[index] for name, array in outputs.items()}
        for index, length in enumerate(batch.lengths)
    ]
