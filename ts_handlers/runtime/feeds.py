"""Arrays as the type that a model takes them in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ts_handlers.errors import RequestError
from ts_handlers.shapes import Array


def feed_as(name: str, array: Array, dtype: Any) -> Array:
    """Return an array as another type; floats become integers only where they are whole numbers of its range.

    Args:
        name: The model's input.
        array: What the handler made.
        dtype: What the model takes.

    Raises:
        RequestError: 400, a float that is no integer of that type: cutting it off would feed other numbers.
    """
    if array.dtype.kind != "f" or np.dtype(dtype).kind not in "iu":
        return array.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    whole = np.rint(array)
    if not ((whole == array) & (whole >= limits.min) & (whole <= limits.max)).all():
        raise RequestError(
            f"the model takes {name} as {np.dtype(dtype).name}, and floats between {array.min():g} and {array.max():g} were "
            "to be fed; send a picture, or levels from 0 to 255. Where pictures are refused, too, set do_rescale and "
            "do_normalize to false in preprocessor_config.json",
            code="invalid_values",
        )
    return whole.astype(dtype)
