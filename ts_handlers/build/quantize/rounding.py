"""Weights rounded one input channel after the other, each time letting the rest make up for the error.

Nearest rounding is best for each weight alone; what counts is the product with activations as they are. The weights stay
floats, on the very values that quantization with one symmetric scale an output channel will give them, so that any engine
quantizes them without a further error.

Source: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv:2210.17323, algorithm 1, with the channels in the order of their size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ts_handlers.build.quantize.graph import Floats

LEVELS, REDUCED_LEVELS = 127, 64
"""Largest integer of 8-bit weights, and of the 7-bit ones that onnxruntime.quantization makes with `reduce_range`."""

DAMPING = 0.01
"""Share of the mean moment that is added to the diagonal, so that it can be inverted; the source's own."""

_BLOCK = 128
"""Channels whose errors reach the channels after them together, as one product."""

Doubles = NDArray[np.float64]


def round_weights(weights: Floats, moments: Floats, levels: int = LEVELS) -> Floats:
    """Round weights to at most `levels` steps of each output's own scale on either side of zero.

    Args:
        weights: `(inputs, outputs)`.
        moments: Sum of x.T @ x over activations x, `(inputs, inputs)`.
        levels: Largest integer.

    Returns:
        The rounded weights: integers times the scale, which is the largest magnitude of the output over `levels`.
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    remaining = weights[order].astype(np.float64)
    scales = np.abs(remaining).max(axis=0) / levels
    scales[scales == 0] = 1
    peaks = np.abs(remaining).argmax(axis=0)  # they stay what they are, or the scale would be another
    spread = _spread(moments[np.ix_(order, order)].astype(np.float64))
    num_inputs, num_outputs = remaining.shape
    rounded = np.empty_like(remaining)
    for start in range(0, num_inputs, _BLOCK):
        end = min(start + _BLOCK, num_inputs)
        errors = np.empty((end - start, num_outputs))
        for index in range(start, end):
            integers = np.clip(np.rint(remaining[index] / scales), -levels, levels)
            given = weights[order[index]]
            is_peak = (peaks == index) & (given != 0)
            integers[is_peak] = np.copysign(levels, given[is_peak])
            rounded[index] = integers * scales
            error = (remaining[index] - rounded[index]) / spread[index, index]
            remaining[index + 1 : end] -= np.outer(spread[index, index + 1 : end], error)
            errors[index - start] = error
        remaining[end:] -= spread[start:end, end:].T @ errors
    result = np.empty(weights.shape, dtype=np.float32)
    result[order] = rounded
    return result


def _spread(moments: Doubles) -> Doubles:
    """Return the upper Cholesky factor of the inverse: how the error of a channel is spread over those after it."""
    diagonal = np.diag(moments).copy()
    damped = moments + np.diag(np.where(diagonal == 0, 1.0, 0.0) + DAMPING * diagonal.mean())
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
