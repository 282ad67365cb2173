"""What a client sends as one image -> the file's bytes, or an array: raw bytes, base64, nested lists, tensors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import PayloadTooLargeError, RequestError

KEYS = ("image", "b64", "image_bytes", "data", "body")
"""Keys an image has in a JSON object: ours, TensorFlow Serving's, and what TorchServe's handlers take."""

_EXPECTED = 'send the file as the body, base64 as {"image": ...} or {"b64": ...}, or a tensor'

_KEY = "key"
"""What TensorFlow Serving's clients name an instance by; answers are in the instances' order and need none."""

_SPACES = b" \r\n\t"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANK_INSIDE = re.compile(rb"[^ \r\n\t] +[^ \r\n\t]")
_BASE64_TEXT = re.compile(rb"\s*(data:[^,]{0,200};base64,|[A-Za-z0-9+/_-]{16})", re.IGNORECASE)
"""How base64 begins; no format of pictures has so many letters first."""


@dataclass(frozen=True, slots=True)
class ImageInstance:
    """One image as the client sent it: a file, or numbers.

    Attributes:
        content: The file; None where numbers were sent.
        array: Integers, which are pixels, or floats, which are ready for the model; None where a file was sent.
        options: What was asked for beside it.
    """

    content: bytes | None = None
    array: NDArray[Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_instance(instance: Any, *, max_bytes: int, options: Sequence[str] = ()) -> ImageInstance:
    """Understand one instance.

    Args:
        instance: bytes, base64 text, an array, nested lists, or an object with one of them under a key of `KEYS`.
        max_bytes: Most bytes of a file.
        options: Other keys an object may have.

    Raises:
        RequestError: 400, it is something else, or no base64.
        PayloadTooLargeError: 413, the base64 is of more than max_bytes.
    """
    if isinstance(instance, Mapping):
        return _from_object(instance, max_bytes, options)
    if isinstance(instance, (bytes, bytearray)):
        return ImageInstance(_file_of(bytes(instance), max_bytes))
    if isinstance(instance, str):
        return ImageInstance(decode_base64(instance, max_bytes))
    if isinstance(instance, (list, np.ndarray)):
        return ImageInstance(array=_as_numbers(instance))
    raise RequestError(f"the instance is of type {type(instance).__name__}; {_EXPECTED}", code="invalid_type")


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Return the bytes of a base64 text or data URL.

    Raises:
        RequestError: 400, it is no base64.
        PayloadTooLargeError: 413, it is of more than max_bytes.
    """
    url = _DATA_URL.match(text)
    if url:
        text = unquote(text[url.end() :]) if "%" in text else text[url.end() :]
    if len(text) // 4 * 3 > max_bytes + len(text) // 32:  # lines may be broken
        raise PayloadTooLargeError(
            f"the image has about {len(text) // 4 * 3} bytes; this model takes {max_bytes}: send a smaller one",
            code="image_too_large",
        )
    try:
        return _decode(text.encode("ascii"))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise RequestError(
            f"the image is a text of {len(text)} characters that is no base64; send base64, or the file as the body",
            code="invalid_base64",
        ) from error


def _decode(text: bytes) -> bytes:
    """Decode base64 of either alphabet, lines broken or not, with or without its padding.

    A blank inside a line was a + once, before a form was read: which bytes it stood for cannot be known.
    """
    if b" " in text and _BLANK_INSIDE.search(text):
        raise binascii.Error("blanks inside")
    encoded = text.translate(_URL_SAFE, _SPACES)
    if len(encoded) % 4 and not encoded.endswith(b"="):
        encoded += b"=" * (-len(encoded) % 4)
    return base64.b64decode(encoded, validate=True)


def _file_of(content: bytes, max_bytes: int) -> bytes:
    """Return a file that was sent as it is, or as base64 without saying so, as forms have it."""
    if not _BASE64_TEXT.match(content):
        return content
    return decode_base64(content.decode("latin-1"), max_bytes)


def _from_object(instance: Mapping[str, Any], max_bytes: int, options: Sequence[str]) -> ImageInstance:
    keys = [key for key in KEYS if key in instance]
    unknown = [repr(key) for key in instance if key not in (*KEYS, _KEY, *options)]
    if len(keys) != 1 or unknown:
        wrong = f"has unknown keys {', '.join(unknown)[:200]}" if unknown else f"has {len(keys)} images"
        raise RequestError(f"the instance {wrong}; {_EXPECTED}", code="invalid_type")
    value = instance[keys[0]]
    if isinstance(value, Mapping):
        if set(value) != {"b64"} or not isinstance(value["b64"], str):
            raise RequestError(f'"{keys[0]}" is an object; {_EXPECTED}', code="invalid_type")
        value = value["b64"]
    found = read_instance(value, max_bytes=max_bytes)
    return ImageInstance(found.content, found.array, {key: instance[key] for key in options if key in instance})


def _as_numbers(values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise RequestError(
            "the lists of the image are of different lengths; send a tensor", code="invalid_shape"
        ) from error
    if array.dtype.kind not in "iuf" or not array.size:
        raise RequestError(f"the image is a list of no numbers; {_EXPECTED}", code="invalid_type")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError("the tensor has numbers that are not finite; send finite ones", code="invalid_pixels")
    return array
