"""Where the values of one tensor lie, over any number of samples in a fixed amount of memory."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ts_handlers.batch import Array

HALF = 4096
"""Bins on either side of zero; a range of one sign uses at least half of its side, 2,048 as TensorRT's histograms have."""

LEVELS = 256
"""Values of an 8-bit integer."""

_SMALLEST_LIMIT = 2.0**-64
_ABSENT = 1e-4
"""Count that stands for none, where only what was cut lies in a bin: its divergence would be infinite."""

_CANDIDATES = 256
"""Ranges whose divergence is computed."""


class Histogram:
    """Counts of a tensor's values in bins of equal width around zero.

    The bins span [-limit, limit), limit being a power of two. A value outside doubles the limit, and pairs of bins become
    one: exactly the counts that the larger limit would have given from the start, whatever the order of the values.

    Attributes:
        lowest: Smallest value seen.
        highest: Largest value seen.
    """

    __slots__ = ("_counts", "_limit", "highest", "lowest")

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(2 * HALF, dtype=np.int64)
        self._limit = _SMALLEST_LIMIT
        self.lowest, self.highest = math.inf, -math.inf

    def add(self, values: Array) -> None:
        """Count values, of any shape.

        Raises:
            ValueError: One is not finite.
        """
        flat = np.asarray(values, dtype=np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"values from {low} to {high} cannot be counted")
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self._widen(max(-low, high))
        bins = np.floor(flat * np.float32(HALF / self._limit)).astype(np.int32)  # exact: a product with a power of two
        self._counts += np.bincount(bins + HALF, minlength=2 * HALF)

    def percentile_range(self, percentile: float, *, is_symmetric: bool = False) -> tuple[float, float]:
        """Return the range that keeps a percentile of all values, half of the rest cut at either end.

        Args:
            percentile: Percent of the values, above 0 and up to 100.
            is_symmetric: Whether it is cut by magnitude instead.
        """
        total = self._counts.sum()
        if is_symmetric:
            magnitudes = self._magnitudes()
            last = int(np.searchsorted(magnitudes.cumsum(), total * percentile / 100))
            return self._clip(-(last + 1), last + 1)
        cut = total * (100 - percentile) / 200
        left = int(np.searchsorted(self._counts.cumsum(), cut, side="right"))
        right = int(np.searchsorted(self._counts[::-1].cumsum(), cut, side="right"))
        return self._clip(left - HALF, HALF - right)

    def entropy_range(self) -> tuple[float, float]:
        """Return the range whose 8-bit values tell most of the distribution: the least Kullback-Leibler divergence.

        Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017. Candidates are cut by magnitude; what is cut is
        counted in the outermost bins of the reference distribution. Zeros count no more than what lies beside them.
        """
        used = np.flatnonzero(self._magnitudes())
        outermost = int(used[-1]) + 1
        narrowest = min(outermost, LEVELS)
        candidates = sorted(set(np.linspace(narrowest, outermost, _CANDIDATES).astype(int).tolist()), reverse=True)
        best = min(candidates, key=partial(_divergence, self._without_zeros()))
        return self._clip(-best, best)

    def _widen(self, magnitude: float) -> None:
        while self._limit <= magnitude:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts[:] = 0
            self._counts[HALF // 2 : HALF // 2 + HALF] = pairs
            self._limit *= 2

    def _magnitudes(self) -> NDArray[np.int64]:
        return self._counts[HALF:] + self._counts[HALF - 1 :: -1]

    def _without_zeros(self) -> NDArray[np.int64]:
        """Return the counts with as many zeros as the fuller bin beside them has, at least one where there are any.

        An integer stands for zero in every range. After a ReLU most values are zeros, and the divergence, which shares
        their count among the bins of a level, would be least where a level is one bin, whatever that cuts.
        """
        counts: NDArray[np.int64] = self._counts.copy()
        beside = max(counts[HALF - 1], counts[HALF + 1], 1)
        counts[HALF] = min(counts[HALF], beside)
        return counts

    def _clip(self, left: int, right: int) -> tuple[float, float]:
        """Return the values at the edges of bins, counted from zero, within those that were seen."""
        width = self._limit / HALF
        return max(left * width, self.lowest), min(right * width, self.highest)


def _divergence(counts: NDArray[np.int64], half: int) -> float:
    """Return how much is lost, in nats, by the range of `half` bins on either side of zero."""
    used = np.flatnonzero(counts)
    left, right = max(HALF - half, int(used[0])), min(HALF + half, int(used[-1]) + 1)
    inside = counts[left:right].astype(np.float64)
    if not inside.any():
        return math.inf
    reference = inside.copy()
    reference[0] += counts[:left].sum()
    reference[-1] += counts[right:].sum()
    levels = np.arange(len(inside)) * LEVELS // len(inside)
    occupied = reference > 0
    sums = np.bincount(levels, weights=inside, minlength=LEVELS)
    sharing = np.bincount(levels, weights=occupied, minlength=LEVELS)
    quantized = (sums / np.maximum(sharing, 1))[levels][occupied]
    p = reference[occupied] / reference.sum()
    q = np.maximum(quantized, _ABSENT)
    return float((p * np.log(p / (q / q.sum()))).sum())
