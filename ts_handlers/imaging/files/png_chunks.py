"""PNG files without what says nothing of their pixels: profiles, comments and times can be broken, or large enough to harm.

Chunks are those of the PNG specification (https://www.w3.org/TR/png-3/#5Chunk-layout): length, type, data, checksum.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_TRANSPARENT = b"tRNS"
_OF_PIXELS = frozenset({_TRANSPARENT, b"eXIf"})
"""Other chunks that count: what is transparent, and which way is up."""

_COLOUR_TYPE = 25
"""Where the header, which is the first chunk, has the kind of pixels."""

_PALETTE, _MOST_COLOURS = 3, 256
_LENGTHS = {0: 2, 2: 6}
"""Kinds of pixels, grey and coloured -> bytes of a transparent one."""

_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_ALSO_OF_PIXELS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Texts that older programs write which way is up in."""

_MOST_TEXT_BYTES = 2**18
"""Of such a text, as it is unpacked; Pillow unpacks 2**20, and refuses the picture of one that is larger."""

_FRAME = 12
"""Bytes of a chunk beside its data."""


def without_metadata(content: bytes) -> bytes:
    """Return a PNG with the chunks alone that its upright pixels depend on, those of which way is up before the pixels.

    Of those that a decoder could do without, one with a wrong checksum is left out, and all of a kind but the first. A file
    that is cut off is returned as far as it goes: its decoder says what is wrong.
    """
    head: list[tuple[int, int]] = []
    tail: list[tuple[int, int]] = []
    position, is_whole, kind = len(SIGNATURE), True, b""
    known: set[bytes] = set()
    while position + _FRAME <= len(content) and kind != b"IEND":
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + _FRAME + length
        kind = content[position + 4 : position + 8]
        is_critical = kind in _CRITICAL
        counts = is_critical or end > len(content) or (kind not in known and _counts(kind, content, position, end))
        if counts and not is_critical:
            known.add(kind)
        is_whole = is_whole and counts and (is_critical or not tail)
        if counts:
            (tail if kind == b"IDAT" or (is_critical and tail) else head).append((position, end))
        position = end
    if is_whole:
        return content
    return b"".join((SIGNATURE, *(content[start:end] for start, end in (*head, *tail)), content[position:]))


def _counts(kind: bytes, content: bytes, start: int, end: int) -> bool:
    if kind in _TEXTS:
        if not content.startswith(_ALSO_OF_PIXELS, start + 8) or not _is_short(kind, content[start + 8 : end - 4]):
            return False
    elif kind not in _OF_PIXELS or (kind == _TRANSPARENT and not _fits(content, end - start - _FRAME)):
        return False
    return zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")


def _fits(content: bytes, length: int) -> bool:
    """Say whether what is transparent is as long as the kind of pixels needs it."""
    if len(content) <= _COLOUR_TYPE:
        return False
    colour_type = content[_COLOUR_TYPE]
    return length <= _MOST_COLOURS if colour_type == _PALETTE else length == _LENGTHS.get(colour_type)


def _is_short(kind: bytes, text: bytes) -> bool:
    """Say whether a text is short, unpacked too; nothing longer is ever unpacked."""
    packed = b"" if kind == b"tEXt" else text[text.index(b"\0") + 2 :]
    if len(text) > _MOST_TEXT_BYTES or (kind == b"iTXt" and text[text.index(b"\0") + 1 :][:1] != b"\0"):
        return False  # XMP is not packed, by its own standard
    if kind != b"zTXt":
        return True
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MOST_TEXT_BYTES)
    except zlib.error:
        return False
    return unpacking.eof
