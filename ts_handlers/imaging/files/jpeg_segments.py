"""JPEG files without what says nothing of their pixels: profiles, comments and previews can be broken, or made to harm.

Segments are those of ITU-T T.81, B.1.1: 0xFF, a marker, a length that counts itself, and data.
"""

from __future__ import annotations

import itertools
import re

from ts_handlers.errors import PayloadTooLargeError, RequestError, UnsupportedMediaTypeError
from ts_handlers.imaging.files.orientation import EXIF_PREFIX, orientation_of

_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Markers of applications' segments, and of comments."""

_EXIF_OR_XMP = 0xE1
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"

_OF_COLOURS = {0xE0: (b"JFIF\0", 16), 0xEE: (b"Adobe", 14)}
"""Of them those that say what the channels are -> how they begin, and the least length that a decoder heeds."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_OTHER_FRAMES = _FRAMES - {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Lossless and hierarchical ones."""

_BITS = 8
_CHANNELS = (1, 3, 4)
_SCAN, _END = 0xDA, 0xD9

_MOST_SEGMENTS = 100_000
_MOST_SCANS = 400
"""And tables between them. Programs write 1 to 20; each takes a decoder through all pixels, and may be of ten bytes."""

_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])")
_MARKER_IN_SCANS = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def without_metadata(content: bytes) -> tuple[bytes, int]:
    """Return a JPEG with the segments alone that its pixels depend on, and which way is up, as EXIF numbers it.

    One that is broken is returned as far as it goes: its decoder says what is wrong.

    Raises:
        RequestError: 400, it has more segments than any program writes.
        PayloadTooLargeError: 413, it has more scans.
        UnsupportedMediaTypeError: 415, its pixels are of a kind that is not decoded.
    """
    kept = [(0, 2)]
    texts = {EXIF_PREFIX: b"", _XMP_PREFIX: b""}
    position = frame = 2
    for _ in range(_MOST_SEGMENTS):
        match = _MARKER.match(content, position)
        if match is None:
            break
        marker, start = match[1][0], match.end() - 2
        end = start + 2 + _length(content, start)
        if marker == _SCAN:
            _check_scans(content, frame, start)
            kept.append((start, len(content)))
            break
        if marker in _FRAMES:
            frame = start
            _check_frame(content, marker, start)
        if marker not in _METADATA or _says_colours(content, marker, start):
            kept.append((start, end))
        elif marker == _EXIF_OR_XMP:
            for prefix, known in texts.items():
                if not known and content.startswith(prefix, start + 4):
                    texts[prefix] = content[start + 4 + len(prefix) : end]
        position = end
    else:
        raise RequestError(
            f"the image has more than {_MOST_SEGMENTS} segments of metadata; send it without", code="broken_image"
        )
    return _joined(content, kept), orientation_of(texts[EXIF_PREFIX], texts[_XMP_PREFIX])


def _length(content: bytes, start: int) -> int:
    return int.from_bytes(content[start + 2 : start + 4], "big")


def _says_colours(content: bytes, marker: int, start: int) -> bool:
    prefix, least = _OF_COLOURS.get(marker, (b"", 0))
    return bool(prefix) and content.startswith(prefix, start + 4) and _length(content, start) >= least


def _check_frame(content: bytes, marker: int, start: int) -> None:
    frame = content[start : start + 10]
    if len(frame) == 10 and (marker in _OTHER_FRAMES or frame[4] != _BITS or frame[9] not in _CHANNELS):
        raise UnsupportedMediaTypeError(
            f"the image is a JPEG of {frame[4]} bits and {frame[9]} channels, frame type {marker - 0xC0}, which is not "
            "decoded here; send one of 8 bits, grey, RGB or CMYK, baseline or progressive",
            code="unsupported_image",
        )


def _joined(content: bytes, kept: list[tuple[int, int]]) -> bytes:
    """Return those parts of a file; the file itself where they are all of it, for a copy takes time."""
    is_whole = kept[-1][1] == len(content) and all(before[1] == after[0] for before, after in itertools.pairwise(kept))
    return content if is_whole else b"".join(content[start:end] for start, end in kept)


def _check_scans(content: bytes, frame: int, start: int) -> None:
    """Refuse a picture whose decoder would go through all its pixels again and again."""
    is_progressive = content[frame + 1] in _PROGRESSIVE
    if not is_progressive and content[start + 4 : start + 5] == content[frame + 9 : frame + 10]:
        return  # all channels are in its one scan
    position = start + 2
    for _ in range(_MOST_SCANS):
        match = _MARKER_IN_SCANS.search(content, position)
        if match is None or match[1][0] == _END:
            return
        position = match.end() + max(2, _length(content, match.start()))
    raise PayloadTooLargeError(
        f"the image is written in more than {_MOST_SCANS} scans and tables; save it anew, not progressive",
        code="image_too_large",
    )
