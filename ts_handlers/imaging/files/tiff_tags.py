"""Tags of a TIFF's first directory, one at a time and without those beside it; an EXIF block is a TIFF, too.

The layout is that of TIFF 6.0, section 2, and of BigTIFF, whose numbers are longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Order = Literal["little", "big"]

_BYTES = {1: 1, 3: 2, 4: 4}
"""Types of whole numbers -> their bytes."""

_ORDERS: Mapping[bytes, Order] = {b"II": "little", b"MM": "big"}
_CLASSIC, _BIG = 42, 43


@dataclass(frozen=True, slots=True)
class Tag:
    """One whole number, and where it is.

    Attributes:
        value: What it is.
        place: Its first byte in the block.
        size: How many bytes it has.
        order: Of its bytes.
    """

    value: int
    place: int
    size: int
    order: Order


def find_tag(block: bytes, number: int) -> Tag | None:
    """Return a tag that is a single whole number; None where there is none, or the directory is broken."""
    order = _ORDERS.get(block[:2])
    if order is None:
        return None
    version = int.from_bytes(block[2:4], order)
    if version not in (_CLASSIC, _BIG):
        return None
    is_big = version == _BIG
    first, offset_bytes, count_bytes, entry_bytes, value_at = (8, 8, 8, 20, 12) if is_big else (4, 4, 2, 12, 8)
    start = int.from_bytes(block[first : first + offset_bytes], order)
    count = int.from_bytes(block[start : start + count_bytes], order)
    start += count_bytes
    for entry in range(start, min(start + min(count, 65535) * entry_bytes, len(block) - entry_bytes + 1), entry_bytes):
        if int.from_bytes(block[entry : entry + 2], order) == number:
            size = _BYTES.get(int.from_bytes(block[entry + 2 : entry + 4], order))
            place = entry + value_at
            if size is None or int.from_bytes(block[entry + 4 : place], order) != 1:
                return None
            return Tag(int.from_bytes(block[place : place + size], order), place, size, order)
    return None


def with_value(block: bytes, tag: Tag, value: int) -> bytes:
    """Return a copy with another value of a tag."""
    return b"".join((block[: tag.place], value.to_bytes(tag.size, tag.order), block[tag.place + tag.size :]))
