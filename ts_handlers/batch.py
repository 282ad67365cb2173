"""Padded arrays, and the way back to sequences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ts_handlers.bucketing import BatchPlan
from ts_handlers.errors import InferenceError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One unpadded sequence for the model; an example can need several (windows of a long context, say).

    Attributes:
        arrays: Named inputs, each `(seq_len, ...)`.
        length: seq_len, in tokens.
        source: What `format` needs to read the outputs (offsets, tokens); never fed.
    """

    arrays: Mapping[str, Array]
    length: int
    source: Any = None


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """What one model call is fed.

    Attributes:
        arrays: Named inputs, each `(batch, padded_length, ...)`.
        lengths: Tokens of each sequence.
        padded_length: Tokens of each row, padding included.
        num_rows: Rows, those included that only fill the call.
    """

    arrays: dict[str, Array]
    lengths: tuple[int, ...]
    padded_length: int
    num_rows: int


def pad_batch(inputs: Sequence[ModelInput], plan: BatchPlan, pad_values: Mapping[str, int]) -> PaddedBatch:
    """Put the sequences of one call into arrays of one length.

    Args:
        inputs: All sequences; the plan names those of this call.
        plan: Which sequences, and to what length.
        pad_values: Fill of each named input; 0 where it has none.

    Raises:
        InferenceError: 500, the sequences do not have the same arrays, or one is not of the length it says.
    """
    chosen = [inputs[index] for index in plan.indices]
    if len({frozenset(item.arrays) for item in chosen}) != 1:
        raise InferenceError("transform returned inputs with different names; each must have the same arrays")
    arrays = {}
    for name, first in chosen[0].arrays.items():
        shape = (plan.num_rows, plan.padded_length, *first.shape[1:])
        array = np.full(shape, pad_values.get(name, 0), dtype=first.dtype)
        for row, item in enumerate(chosen):
            if len(item.arrays[name]) != item.length:
                raise InferenceError(f"transform says {item.length} tokens, and {name} has {len(item.arrays[name])}")
            array[row, : item.length] = item.arrays[name]
        array[len(chosen) :] = array[len(chosen) - 1]
        arrays[name] = array
    return PaddedBatch(arrays, tuple(item.length for item in chosen), plan.padded_length, plan.num_rows)


def split_rows(
    outputs: Mapping[str, Array], batch: PaddedBatch, sequence_outputs: Collection[str]
) -> list[dict[str, Array]]:
    """Give each sequence its own outputs, without padding.

    Args:
        outputs: Named outputs of a call, each `(batch, ...)`.
        batch: The call.
        sequence_outputs: Those with the sequence as their second axis, `(batch, padded_length, ...)`.

    Raises:
        InferenceError: 500, an output is not of that shape, so that rows could be mixed up.
    """
    for name, array in outputs.items():
        expected = (batch.num_rows, batch.padded_length) if name in sequence_outputs else (batch.num_rows,)
        if array.shape[: len(expected)] != expected:
            raise InferenceError(
                f"the model's output {name} has the shape {array.shape}; it must begin with {expected}"
            )
    return [
        {name: array[row, :length] if name in sequence_outputs else array[row] for name, array in outputs.items()}
        for row, length in enumerate(batch.lengths)
    ]
