"""Files whose pixels are whole and whose metadata is large, broken or unusual; and depths that have rules of their own."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.pictures import encode, scene
from ts_handlers.errors import RequestError
from ts_handlers.imaging.decoding import ImageLimits, decode_image, open_image

LIMITS = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
FLAT = np.full((20, 30, 3), 77, dtype=np.uint8)
BLOCK = 2_000_000


def chunk(kind: bytes, content: bytes, *, is_broken: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ is_broken
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def packed(levels: Any, depth: int) -> bytes:
    """Return levels as so many bits each."""
    bits = (np.ravel(levels).astype(np.uint32)[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def tiff(
    levels: list[int], depth: int, *, order: Literal["<", ">"] = "<", channels: int = 1, **tags: tuple[int, int]
) -> bytes:
    """Return a grey TIFF of one row; a tag is its number and its value, with a type: 3 is short, 4 is long."""
    data = packed(levels, depth) if depth % 8 else np.array(levels, dtype=f"{order}u{depth // 8}").tobytes()
    found = {256: (4, len(levels) // channels), 257: (4, 1), 258: (3, depth), 259: (3, 1), 262: (3, 1), 273: (4, 0)}
    found |= {277: (3, channels), 278: (4, 1), 279: (4, len(data))}
    found |= {int(name.removeprefix("tag")): value for name, value in tags.items()}
    found[273] = (4, 8 + 2 + 12 * len(found) + 4)
    entries = b""
    for tag, (kind, value) in sorted(found.items()):
        count = channels if tag == 258 else 1
        packed_value = (
            struct.pack(order + "I", value)
            if kind == 4
            else struct.pack(order + "HH", *(value,) * count, *(0,) * (2 - count))
        )
        entries += struct.pack(order + "HHI", tag, kind, count) + packed_value
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IH", 8, len(found)) + entries + bytes(4) + data


def png(pixels: Any, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG with more chunks before its pixels."""
    rows = b"".join(b"\0" + packed(row, depth) for row in pixels)
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
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", b"\0\0\0\0\0\0", is_broken=True),
        chunk(b"eXIf", b"no EXIF at all"),
        chunk(b"vpAg", b"of somebody's own"),
    ],
)
def test_metadata_of_a_png_is_no_reason_to_refuse_its_pixels(more: bytes) -> None:
    assert first_pixel(png(FLAT, more)) == [77, 77, 77]


def test_an_interlaced_png() -> None:
    pixels = scene(21, 30)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = (pixels[top::down, left::across] for top, left, down, across in passes)
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 21, 8, 2, 0, 0, 1)), chunk(b"IDAT", zlib.compress(rows))
    content = b"".join((b"\x89PNG\r\n\x1a\n", *body, chunk(b"IEND", b"")))
    np.testing.assert_array_equal(decode_image(open_image(content, LIMITS)).pixels, pixels)


def test_a_bomb_in_a_profile_is_not_unpacked() -> None:
    content = png(FLAT, chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200_000_000))))
    tracemalloc.start()
    first_pixel(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("keyword", [b"Raw profile type exif", b"XML:com.adobe.xmp", b"Comment"])
def test_a_bomb_in_a_text_is_not_unpacked(keyword: bytes) -> None:
    for more in (
        chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(bytes(200_000_000))),
        chunk(b"iTXt", keyword + b"\0\1\0\0\0" + zlib.compress(bytes(200_000_000))),
        chunk(b"zTXt", keyword + b"\0\0no zlib"),
        chunk(b"tEXt", keyword + b"\0" + bytes(5_000_000)),
    ):
        content = png(FLAT, more)
        tracemalloc.start()
        first_pixel(content)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8_000_000


def test_only_the_first_chunk_of_a_kind_is_given_to_a_decoder() -> None:
    blocks = [chunk(b"eXIf", EXIF), *[chunk(b"eXIf", EXIF.replace(b"\0\6", b"\0\1"))] * 1000]
    opened = open_image(png(FLAT, *blocks), LIMITS)
    assert (opened.height, opened.width) == (30, 20)
    assert len(opened.content) < len(png(FLAT, blocks[0])) + 10


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_tags_that_share_their_bytes_are_not_read(format_: str) -> None:
    """Each says that it has 1 MB, and there is one of it: tools that read all of them need 100 MB."""
    entries = b"".join(struct.pack(">HHII", 0x5000 + tag, 7, 1_000_000, 8) for tag in range(100))
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 100) + entries + bytes(1_000_000)
    content = encode(FLAT, format_, exif=block, lossless=True)
    tracemalloc.start()
    first_pixel(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
"""Which says that the left edge is up."""

XMP = b'<rdf:Description tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"eXIf", EXIF),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n26\n" + EXIF.hex().encode() + b"\n")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_which_way_is_up_wherever_a_png_says_it(more: bytes, is_last: bool) -> None:
    content = png(FLAT[:10], more)
    if is_last:
        end = chunk(b"IEND", b"")
        content = png(FLAT[:10])[: -len(end)] + more + end
    picture = decode_image(open_image(content, LIMITS))
    assert (picture.height, picture.width) == picture.pixels.shape[:2] == (30, 10)


def test_pixels_of_a_png_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    load = ImageFile.ImageFile.load

    def record(image: ImageFile.ImageFile) -> Any:
        loads.append(list(image.tile))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", record)
    opened = open_image(png(FLAT), LIMITS)
    assert loads == []
    decode_image(opened)
    assert len([tile for tile in loads if tile]) == 1


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


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_level_is_white_at_every_depth(depth: int) -> None:
    most = 2**depth - 1
    for transparent in {0, 1, most // 2, most}:
        levels = np.array([[[0], [1], [most // 2], [most]]])
        content = png(levels, chunk(b"tRNS", struct.pack(">H", transparent)), depth=depth, colour=0)
        expected = [255 if level == transparent else round(level * 255 / most) for level in levels.ravel()]
        found = decode_image(open_image(content, LIMITS)).pixels[0]
        assert found.tolist() == [[level] * 3 for level in expected], transparent


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_levels_of_a_grey_tiff(depth: int) -> None:
    most = 2**depth - 1
    found = decode_image(open_image(tiff([0, most // 3, most], depth), LIMITS)).pixels[0, :, 0]
    assert found.tolist() == [0, 85, 255]


@pytest.mark.parametrize(("depth", "sample_format"), [(32, 1), (32, 2), (16, 2), (8, 2), (32, 3), (64, 3)])
def test_numbers_that_say_nothing_of_black_and_white_are_a_415(depth: int, sample_format: int) -> None:
    content = tiff([0, 100, 120], depth, tag339=(3, sample_format))
    with pytest.raises(RequestError, match="pixels (are of type|of a kind)") as caught:
        first_pixel(content)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_image")


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize(
    ("depth", "order"), [(1, "<"), (2, ">"), (4, "<"), (8, ">"), (8, "<"), (12, "<"), (16, "<"), (16, ">")]
)
def test_levels_that_count_from_white(depth: int, order: Literal["<", ">"], kind: int) -> None:
    most = 2**depth - 1
    content = tiff([0, most // 3, most, 0], depth, order=order, tag262=(kind, 0))
    found = decode_image(open_image(content, LIMITS)).pixels[0, :, 0]
    assert found.tolist() == [255, 255 - round(most // 3 * 255 / most), 0, 255]


def test_levels_that_count_from_white_with_transparency() -> None:
    content = tiff([0, 255, 255, 255, 100, 0, 100, 128], 8, channels=2, tag262=(3, 0), tag338=(3, 2))
    found = decode_image(open_image(content, LIMITS)).pixels[0, :, 0]
    assert found.tolist()[:3] == [255, 0, 255]
    assert abs(int(found[3]) - (255 - 50)) <= 1


def test_a_bigtiff_that_counts_from_white() -> None:
    content = encode(np.full((4, 4), 65535, np.uint16), "TIFF", big_tiff=True)
    place = content.index(struct.pack("<HHQ", 262, 3, 1)) + 12
    assert first_pixel(content) == [255] * 3
    assert first_pixel(content[:place] + b"\0\0" + content[place + 2 :]) == [0] * 3


@pytest.mark.parametrize(("level", "expected"), [(1000, 255), (1001, 4)])
def test_a_transparent_level_of_16_bits_is_white_and_its_neighbour_is_not(level: int, expected: int) -> None:
    grey = np.full((4, 4, 1), level)
    content = png(grey, chunk(b"tRNS", struct.pack(">H", 1000)), depth=16, colour=0)
    assert first_pixel(content) == [expected] * 3


@pytest.mark.parametrize("level", [19789, 77])
def test_a_transparent_colour_of_16_bits_a_channel_is_a_415(level: int) -> None:
    content = png(FLAT * np.uint16(257), chunk(b"tRNS", struct.pack(">HHH", level, level, level)), depth=16)
    with pytest.raises(RequestError, match="16 bits a channel and a transparent colour") as caught:
        first_pixel(content)
    assert caught.value.status == 415
