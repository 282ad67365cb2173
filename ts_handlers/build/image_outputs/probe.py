"""Pictures that show what a model of images returns: noise, extremes and structure, and floats that no picture has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ts_handlers.build.image_outputs.made_pictures import made_picture
from ts_handlers.errors import OperatorError, RequestError, all_lines
from ts_handlers.imaging.preprocessing import Channels
from ts_handlers.shapes import Array, Size

Outputs = Mapping[str, Array]
"""What a model returned of one call, by its own names, each `(batch, ...)`."""

Layout = Literal["NCHW", "NHWC"]

Run = Callable[[Array], Outputs]
"""Runs a model on pictures as it takes them, by whatever way its form has."""

FAR = 40.0
"""How many times farther from the middle than a picture's values those are that no picture has."""

_SAME = 0.02
"""Largest difference of a row's outputs alone and in a pair, relative to their usual size; of integers, part that differ."""


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a model takes.

    Attributes:
        size: (height, width) of the pictures.
        layout: Their axes.
        scale: Factor of each channel's 0 to 255.
        shift: What is added to it then.
        is_integer: Whether it takes whole numbers.
    """

    size: Size
    layout: Layout
    scale: Channels
    shift: Channels
    is_integer: bool = False

    def values(self, levels: Array) -> Array:
        """Return `(height, width, 3)` levels from 0 to 255 as a batch of one."""
        values = levels.astype(np.float32) * np.asarray(self.scale, np.float32) + np.asarray(self.shift, np.float32)
        return np.ascontiguousarray(values[None] if self.layout == "NHWC" else values.transpose(2, 0, 1)[None])


@dataclass(frozen=True, slots=True)
class Probe:
    """What a model returned.

    Attributes:
        pictures: Of what pictures can be, one call each.
        far: Of floats that no picture has, where it takes them; an activation at a model's end bounds these, too.
        takes_pairs: Whether rows of one call are answered as they are alone.
    """

    pictures: Sequence[Outputs]
    far: Sequence[Outputs]
    takes_pairs: bool


def probe(run: Run, form: InputForm, what: str, *, tries_pairs: bool = True) -> Probe:
    """Run a model on a dozen inputs.

    Args:
        run: Runs it.
        form: What it takes.
        what: Name of it, for errors.
        tries_pairs: Whether it may take several rows.

    Raises:
        OperatorError: It fails on a picture.
    """
    inputs = [form.values(levels) for levels in _levels(form.size)]
    try:
        pictures = [run(values) for values in inputs]
    except RequestError as error:
        raise OperatorError(f"{what} fails on a picture: {error.message}") from error
    except Exception as error:  # engines raise what they like
        shape = list(inputs[0].shape)
        raise OperatorError(f"{what} fails on a picture, given as {shape}: {all_lines(error)}") from error
    far = [] if form.is_integer else list(_run_far(run, form))
    return Probe(pictures, far, tries_pairs and _takes_pairs(run, inputs[:2], pictures[:2]))


def stacked(outputs: Sequence[Outputs], name: str, count: int) -> Array:
    """Return one output of all calls as `(rows, count)`."""
    return np.reshape([item[name] for item in outputs], (-1, count))


def _levels(size: Size) -> Iterator[Array]:
    dice = np.random.default_rng(0)
    for _ in range(3):
        yield dice.integers(0, 256, (*size, 3))
    for colour in (*np.eye(3), np.zeros(3), np.ones(3)):
        yield 255 * colour * np.ones((*size, 1))
    for number in (1, 2):
        yield made_picture(*size, number)


def _run_far(run: Run, form: InputForm) -> Iterator[Outputs]:
    dice = np.random.default_rng(1)
    noise = dice.integers(0, 256, (*form.size, 3)) - 127.5
    inputs = [127.5 + FAR * noise, 127.5 - FAR * noise, *(np.full(noise.shape, end * 255) for end in (FAR, -FAR))]
    try:
        for levels in inputs:
            yield run(form.values(levels))
    except Exception:  # noqa: BLE001  # no picture is like these, so that a model may refuse them
        return


def _takes_pairs(run: Run, inputs: Sequence[Array], alone: Sequence[Outputs]) -> bool:
    """Say whether two pictures in one call are answered as each is alone."""
    try:
        together = run(np.concatenate(inputs))
    except Exception:  # noqa: BLE001  # of one row's shape, or whatever else it says
        return False
    return all(
        name in together and len(together[name]) == len(inputs) and _are_near(together[name][row], outputs[name][0])
        for row, outputs in enumerate(alone)
        for name in outputs
        if outputs[name].shape[:1] == (1,)
    )


def _are_near(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind in "iub":
        return bool(np.mean(left != right) <= _SAME) if left.size else True
    left, right = left.astype(np.float64), right.astype(np.float64)
    usual = max(float(np.sqrt(np.mean(right**2))) if right.size else 0.0, 1e-6)
    return right.size == 0 or float(np.sqrt(np.mean((left - right) ** 2))) <= _SAME * usual
