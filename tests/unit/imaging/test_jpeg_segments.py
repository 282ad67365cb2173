"""JPEG files whose pixels are whole and whose metadata is large, broken or made to harm."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode, scene
from ts_handlers.errors import RequestError
from ts_handlers.imaging.decoding import ImageLimits, decode_image, open_image

LIMITS = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
PLAIN = encode(scene(40, 64), "JPEG", quality=100)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
"""Which says that the left edge is up."""
XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
ENTRY = b"MM\0*\0\0\0\x08\0\1\x01\x12"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def beginning_with(more: bytes, content: bytes = PLAIN) -> bytes:
    return content[:2] + more + content[2:]


def pixels(content: bytes) -> Any:
    return decode_image(open_image(content, LIMITS)).pixels


METADATA = {
    "a preview that is no MPO": segment(0xE2, b"MPF\0II*\0\xff\xff\0\0"),
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a resource block that is cut off": segment(0xED, b"Photoshop 3.0\x008BIM\4\xed\xff"),
    "a profile in parts that do not fit": segment(0xE2, b"ICC_PROFILE\0\1\2x"),
    "a profile of 16 MB": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((i, 250)) + bytes(65000)) for i in range(250)
    ),
    "comments": segment(0xFE, b"c") * 90_000,
    "XMP that is no text": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
    "fill bytes": b"\xff" * 1000,
    "EXIF without a block": segment(0xE1, b"Exif\0\0"),
    "EXIF without a directory": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08"),
    "EXIF elsewhere": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "a fraction for an orientation": segment(0xE1, b"Exif\0\0" + ENTRY + b"\0\5\0\0\0\1\0\0\0\x1a" + bytes(12)),
    "two orientations": segment(0xE1, b"Exif\0\0" + ENTRY + b"\0\3\0\0\0\2\0\6\0\1" + bytes(4)),
    "an orientation of 99": segment(0xE1, b"Exif\0\0" + ENTRY + b"\0\3\0\0\0\1\0\x63\0\0" + bytes(4)),
    "many blocks of EXIF": segment(0xE1, b"Exif\0\0" + bytes(10)) * 90_000,
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_no_reason_to_refuse_the_pixels(name: str) -> None:
    np.testing.assert_array_equal(pixels(beginning_with(METADATA[name])), pixels(PLAIN))


def test_what_decodes_colours_is_kept() -> None:
    for image, options in (
        (Image.fromarray(scene(40, 64)), {"keep_rgb": True}),
        (Image.fromarray(scene(40, 64)).convert("CMYK"), {}),
    ):
        content = encode(image, "JPEG", quality=100, **options)
        assert b"Adobe" in content[:64]
        found = pixels(beginning_with(segment(0xFE, b"c"), content))
        assert np.abs(found.astype(np.int16) - scene(40, 64)).max() <= 8


@pytest.mark.parametrize("block", [EXIF, XMP])
def test_which_way_is_up(block: bytes) -> None:
    picture = decode_image(open_image(beginning_with(segment(0xE1, block)), LIMITS))
    expected = np.rot90(pixels(PLAIN), -1)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert (picture.height, picture.width) == expected.shape[:2]


def test_exif_goes_before_xmp() -> None:
    upright = segment(0xE1, EXIF.replace(b"\0\6\0\0\0\0", b"\0\1\0\0\0\0"))
    for more in (upright + segment(0xE1, XMP), segment(0xE1, XMP) + upright):
        assert pixels(beginning_with(more)).shape == (40, 64, 3)


@pytest.mark.parametrize("marker", [0xFE, 0xE1, 0xDB])
def test_more_segments_than_any_program_writes_are_a_400(marker: int) -> None:
    with pytest.raises(RequestError, match="more than 100000 segments") as caught:
        pixels(beginning_with(segment(marker, b"") * 100_001))
    assert (caught.value.status, caught.value.code) == (400, "broken_image")


@pytest.mark.parametrize("length", [3, 4, 20, 100, 400])
def test_a_header_that_is_cut_off_is_a_400(length: int) -> None:
    with pytest.raises(RequestError, match="broken or cut off"):
        pixels(beginning_with(segment(0xE1, EXIF))[:length])


@pytest.mark.parametrize(("at", "value"), [(1, 0xC3), (1, 0xC5), (1, 0xCB), (4, 12), (4, 16), (9, 2), (9, 5)])
def test_frames_that_are_not_decoded_are_a_415(at: int, value: int) -> None:
    content = bytearray(PLAIN)
    content[content.index(b"\xff\xc0") + at] = value
    with pytest.raises(RequestError, match="the image is a JPEG of .* which is not decoded here; send") as caught:
        pixels(bytes(content))
    assert caught.value.status == 415


def last_scan(content: bytes) -> bytes:
    """Return the header of a picture's last scan, which has all its data at its end."""
    start = content.rindex(b"\xff\xda")
    return content[start : start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")]


def test_a_progressive_picture_of_endless_scans_is_a_413() -> None:
    content = encode(scene(40, 64), "JPEG", quality=90, progressive=True)
    assert pixels(content[:-2] + last_scan(content) * 20 + content[-2:]).shape == (40, 64, 3)
    with pytest.raises(RequestError, match="more than 400 scans and tables; save it anew") as caught:
        open_image(content[:-2] + last_scan(content) * 400 + content[-2:], LIMITS)
    assert (caught.value.status, caught.value.code) == (413, "image_too_large")
    video = bytes((0xFF, 0xDA, 0, 2)) * 1000
    np.testing.assert_array_equal(pixels(content + video), pixels(content))
