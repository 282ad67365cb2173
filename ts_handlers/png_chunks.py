"""PNG files without what says nothing of their pixels: profiles, comments and times can be broken, or large enough to harm.

Chunks are those of the PNG specification (https://www.w3.org/TR/png-3/#5Chunk-layout): length, type, data, checksum.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_OF_PIXELS = frozenset({b"tRNS", b"eXIf"})
"""Other chunks that count: what is transparent, and which way is up."""

_FRAME = 12
"""Bytes of a chunk beside its data."""


def without_metadata(content: bytes) -> bytes:
    """Return a PNG with the chunks alone that its upright pixels depend on.

    Of those that a decoder could do without, one with a wrong checksum is left out. Nothing is unpacked. A file that is cut
    off is returned as far as it goes: its decoder says what is wrong.
    """
    kept, position, is_whole = [], len(SIGNATURE), True
    while position + _FRAME <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + _FRAME + length
        if _counts(content[position + 4 : position + 8], content, position, end):
            kept.append((position, end))
        else:
            is_whole = False
        position = end
    if is_whole:
        return content
    return b"".join((SIGNATURE, *(content[start:end] for start, end in kept), content[position:]))


def _counts(kind: bytes, content: bytes, start: int, end: int) -> bool:
    if kind in _CRITICAL or end > len(content):
        return True
    checksum = int.from_bytes(content[end - 4 : end], "big")
    return kind in _OF_PIXELS and zlib.crc32(content[start + 4 : end - 4]) == checksum
