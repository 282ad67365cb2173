"""Which way is up in a picture: EXIF's number, from 1 (as it is stored) to 8, read without the rest of its metadata.

The block is a directory of TIFF (CIPA DC-008, 4.6.2): 12 bytes a tag, of which one alone is read, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

EXIF_PREFIX = b"Exif\0\0"

_TAG, _SHORT = 0x0112, 3
_ENTRY = 12

_ORDERS: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_MOST_XMP_BYTES = 2**20
_RAW_PROFILE = "Raw profile type exif"
_RAW_PROFILE_LINES = 3
"""Lines before the hexadecimal digits of such a text: an empty one, a name and a length."""


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """Return which way is up, by EXIF or else by XMP; 1 where neither says it: broken metadata leaves the pixels whole."""
    found = _in_exif(exif)
    if found is None:
        match = _IN_XMP.search(xmp, 0, _MOST_XMP_BYTES)
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def orientation_in(info: Mapping[Any, Any]) -> int:
    """Return which way is up by what Pillow has kept of a PNG or a WebP."""
    exif = info.get("exif")
    if exif is None and _RAW_PROFILE in info:
        digits = "".join(str(info[_RAW_PROFILE]).split("\n")[_RAW_PROFILE_LINES:])
        try:
            exif = bytes.fromhex(digits)
        except ValueError:
            exif = b""
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    return orientation_of(exif or b"", xmp.encode() if isinstance(xmp, str) else xmp)


def _in_exif(exif: bytes) -> int | None:
    block = exif.removeprefix(EXIF_PREFIX)
    order = _ORDERS.get(block[:4])
    if order is None:
        return None
    start = int.from_bytes(block[4:8], order)
    count = int.from_bytes(block[start : start + 2], order)
    first = start + 2
    for entry in range(first, min(first + count * _ENTRY, len(block) - _ENTRY + 1), _ENTRY):
        if int.from_bytes(block[entry : entry + 2], order) == _TAG:
            kind, values = (
                int.from_bytes(block[entry + at : entry + at + size], order) for at, size in ((2, 2), (4, 4))
            )
            return int.from_bytes(block[entry + 8 : entry + 10], order) if (kind, values) == (_SHORT, 1) else None
    return None
