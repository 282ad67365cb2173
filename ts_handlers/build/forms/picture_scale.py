"""The numbers that a model's pictures have: whole levels, or levels scaled once, by the preprocessing or by the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ts_handlers.errors import OperatorError
from ts_handlers.preprocessing import Preprocessing


def whole_numbers(path: Path, values: Mapping[str, Any], preprocessing: Preprocessing) -> tuple[Mapping[str, Any], str]:
    """Return a preprocessor_config.json for a model that takes levels from 0 to 255 as integers, and what to say of it.

    Raises:
        OperatorError: Its own makes other numbers of them than levels, or levels divided by 255.
    """
    scale, shift = np.asarray(preprocessing.scale), np.asarray(preprocessing.shift)
    if (scale == 1).all() and (shift == 0).all():
        return values, ""
    if np.allclose(scale, 1 / 255) and (shift == 0).all():
        note = (
            "the model takes whole numbers, so that pictures are fed as their levels, 0 to 255: do_rescale and do_normalize "
            "of preprocessor_config.json are set to false"
        )
        return {**values, "do_rescale": False, "do_normalize": False}, note
    low, high = shift.min(), (255 * scale + shift).max()
    raise OperatorError(
        f"{path} takes pictures as whole numbers, and preprocessor_config.json makes floats of them, from {low:.3g} to "
        f"{high:.3g}; set do_rescale and do_normalize to false there, if the model scales levels from 0 to 255 itself"
    )


@dataclass(frozen=True, slots=True)
class OwnScale:
    """What a model does first to every number of its picture: value * factor + offset, mean over the channels.

    Attributes:
        factor: 1 where it does nothing of the kind.
        offset: 0 where it does nothing of the kind.
    """

    factor: float = 1.0
    offset: float = 0.0

    def then(self, operator: str, constant: float) -> OwnScale:
        """Return it with one more step: add, sub, mul or div by a constant."""
        factor, offset = self.factor, self.offset
        if operator in ("add", "sub"):
            return OwnScale(factor, offset + (constant if operator == "add" else -constant))
        by = constant if operator == "mul" else 1 / constant
        return OwnScale(factor * by, offset * by)

    @property
    def wants_levels(self) -> bool:
        """Whether it makes small numbers of large ones, or takes a mean off that only levels have."""
        return 0 < self.factor < _SMALL or -self.offset / self.factor > _LARGE

    @property
    def wants_parts(self) -> bool:
        """Whether it spreads numbers from 0 to 1 around 0."""
        low, high = _MEANS
        return self.factor > _SPREAD and low < -self.offset / self.factor < high


_SMALL, _LARGE = 0.05, 50.0
"""Factors of models that scale levels are 1 / 255 to 1 / 57; the means that they take off are 103 and more."""

_SPREAD, _MEANS = 1.5, (0.2, 0.8)
"""Factors of models that normalize are 2 to 4.5, and the means that they take off 0.4 to 0.5."""


def check_scale(path: Path, own: OwnScale, preprocessing: Preprocessing) -> None:
    """Compare what a model does to its picture first with what was done to it before.

    Raises:
        OperatorError: Both scale it, or both take its mean off, or neither scales it.
    """
    low = min(preprocessing.shift)
    high = max(255 * scale + shift for scale, shift in zip(preprocessing.scale, preprocessing.shift, strict=True))
    if own.wants_levels and high < _LARGE:
        wanted, change = "levels from 0 to 255", "do_rescale and do_normalize to false"
    elif own.wants_parts and (low < -_MEANS[0] or high > _LARGE):
        wanted, change = "numbers from 0 to 1", "do_rescale to true and do_normalize to false"
    else:
        return
    raise OperatorError(
        f"{path} begins with x * {own.factor:.3g} {own.offset:+.3g}, which is meant for {wanted}, and "
        f"preprocessor_config.json makes numbers from {low:.3g} to {high:.3g}: it would be scaled twice, or not at all. "
        f"Set {change} there"
    )
