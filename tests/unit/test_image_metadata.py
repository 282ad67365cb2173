"""Files whose pixels are whole and whose metadata is large, broken or unusual; and depths that have rules of their own."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode, scene
from ts_handlers.errors import RequestError
from ts_handlers.images import ImageLimits, decode_image, open_image

LIMITS = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
FLAT = np.full((20, 30, 3), 77, dtype=np.uint8)
BLOCK = 2_000_000


def chunk(kind: bytes, content: bytes, *, is_broken: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ is_broken
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(pixels: Any, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG with more chunks before its pixels."""
    kind = ">u2" if depth == 16 else "u1"
    rows = b"".join(b"\0" + row.astype(kind).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, 0)
    body = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def first_pixel(content: bytes) -> list[int]:
    found: list[int] = decode_image(open_image(content, LIMITS)).pixels[0, 0].tolist()
    return found


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(BLOCK))),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * BLOCK)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * BLOCK)),
        chunk(b"tEXt", b"Comment\0a", is_broken=True),
        chunk(b"pHYs", b"short"),
        chunk(b"gAMA", b""),
        chunk(b"tRNS", b"\0\0\0\0\0\0", is_broken=True),
        chunk(b"eXIf", b"no EXIF at all"),
        chunk(b"vpAg", b"of somebody's own"),
    ],
)
def test_metadata_of_a_png_is_no_reason_to_refuse_its_pixels(more: bytes) -> None:
    assert first_pixel(png(FLAT, more)) == [77, 77, 77]


def test_a_bomb_in_a_profile_is_not_unpacked() -> None:
    content = png(FLAT, chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200_000_000))))
    tracemalloc.start()
    first_pixel(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_wrong_checksum_of_the_header_is_a_400() -> None:
    content = bytearray(png(FLAT, chunk(b"tEXt", b"a\0b")))
    start = content.index(b"IHDR")
    length = int.from_bytes(content[start - 4 : start], "big")
    content[start + 4 + length] ^= 1
    with pytest.raises(RequestError, match="broken or cut off"):
        first_pixel(bytes(content))


def test_which_way_is_up_is_kept() -> None:
    picture = Image.fromarray(scene(20, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    opened = open_image(encode(picture, "PNG", exif=exif, pnginfo=None), LIMITS)
    assert (opened.height, opened.width) == (40, 20)


@pytest.mark.parametrize(
    "options", [{"icc_profile": bytes(300_000)}, {"comment": b"c" * 60_000}, {"exif": b"Exif\0\0rubbish"}]
)
def test_metadata_of_a_jpeg_is_no_reason_either(options: dict[str, Any]) -> None:
    assert first_pixel(encode(FLAT, "JPEG", quality=100, **options) + b"trailing") == [77, 77, 77]


def test_bigtiff() -> None:
    assert first_pixel(encode(FLAT, "TIFF", big_tiff=True)) == [77, 77, 77]


@pytest.mark.parametrize(("level", "expected"), [(1000, 255), (1001, 4)])
def test_a_transparent_level_of_16_bits_is_white_and_its_neighbour_is_not(level: int, expected: int) -> None:
    grey = np.full((4, 4, 1), level)
    content = png(grey, chunk(b"tRNS", struct.pack(">H", 1000)), depth=16, colour=0)
    assert first_pixel(content) == [expected] * 3


def test_a_transparent_colour_of_16_bits_a_channel_is_a_415() -> None:
    content = png(FLAT * np.uint16(257), chunk(b"tRNS", struct.pack(">HHH", 19789, 19789, 19789)), depth=16)
    with pytest.raises(RequestError, match="16 bits a channel and a transparent colour") as caught:
        first_pixel(content)
    assert caught.value.status == 415


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("photometric", "expected"), [(0, 0), (1, 255)])
def test_grey_that_counts_from_white(dtype: Any, photometric: int, expected: int) -> None:
    pixels = np.full((4, 4), np.iinfo(dtype).max, dtype)
    content = bytearray(encode(Image.fromarray(pixels), "TIFF"))
    place = content.index(struct.pack("<HHI", 262, 3, 1))
    content[place + 8] = photometric
    assert first_pixel(bytes(content)) == [expected] * 3
