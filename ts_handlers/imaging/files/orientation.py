"""Which way is up in a picture: EXIF's number, from 1 (as it is stored) to 8 (CIPA DC-008, 4.6.4), read without the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ts_handlers.imaging.files.tiff_tags import find_tag

EXIF_PREFIX = b"Exif\0\0"

_TAG = 0x0112

_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_MOST_XMP_BYTES = 2**20
_RAW_PROFILE = "Raw profile type exif"
_RAW_PROFILE_LINES = 3
"""Lines before the hexadecimal digits of such a text: an empty one, a name and a length."""


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """Return which way is up, by EXIF or else by XMP; 1 where neither says it: broken metadata leaves the pixels whole."""
    tag = find_tag(exif.removeprefix(EXIF_PREFIX), _TAG)
    found = None if tag is None else tag.value
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
