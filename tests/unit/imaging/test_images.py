from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pictures import broken_images, encode, photograph, photograph_pixels, png_header, scene
from ts_handlers.errors import PayloadTooLargeError, RequestError
from ts_handlers.imaging import decoding as images
from ts_handlers.imaging.decoding import ImageLimits, decode_image, open_image, picture_from_pixels
from ts_handlers.imaging.preprocessing import Preprocessing, Resize, preprocess

LIMITS = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)


def decode(content: bytes, wanted: tuple[int, int] | None = None, resample: int = 2) -> images.Picture:
    return decode_image(open_image(content, LIMITS), wanted, resample=resample)


def levels(left: Any, right: Any) -> tuple[int, float]:
    """Return the largest and the mean difference of two images, in levels of 256."""
    difference = np.abs(np.asarray(left, dtype=np.int16) - np.asarray(right, dtype=np.int16))
    return int(difference.max()), float(difference.mean())


@pytest.mark.parametrize(
    ("format_", "options", "mean"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
    ],
)
def test_every_format_gives_the_pixels(format_: str, options: dict[str, Any], mean: int) -> None:
    pixels = scene(70, 90)
    picture = decode(encode(pixels, format_, **options))
    assert (picture.height, picture.width) == (70, 90)
    assert picture.pixels.dtype == np.uint8
    assert levels(picture.pixels, pixels)[1] <= mean


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), level, np.uint8)) for level in (10, 200)]
    for format_ in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encode(frames[0], format_, save_all=True, append_images=frames[1:])
        assert levels(decode(content).pixels, np.full((20, 30, 3), 10))[0] <= 2, format_


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(format_: str, orientation: int) -> None:
    from PIL import ImageOps

    stored = Image.fromarray(scene(40, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(stored, format_, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    picture = decode(content)
    assert (picture.width, picture.height) == upright.size
    np.testing.assert_array_equal(picture.pixels, np.asarray(upright))


def test_a_broken_exif_block_is_no_reason_to_refuse_the_pixels() -> None:
    content = encode(scene(20, 20), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(3))
    assert decode(content).pixels.shape == (20, 20, 3)


def test_cmyk_is_converted() -> None:
    pixels = scene(40, 40)
    content = encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=98)
    assert levels(decode(content).pixels, pixels)[1] < 6


def test_16_bits_are_scaled_to_8() -> None:
    deep = np.linspace(0, 65535, 256 * 16).reshape(64, 64).astype(np.uint16)
    for format_ in ("PNG", "TIFF"):
        pixels = decode(encode(deep, format_)).pixels
        assert levels(pixels[..., 1], np.round(deep / 257))[0] <= 1, format_
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_integers_of_32_bits_are_no_picture() -> None:
    with pytest.raises(RequestError, match="pixels are of type I") as caught:
        decode(encode(Image.fromarray(np.full((4, 4), 1_000_000, np.int32)), "TIFF"))
    assert caught.value.status == 415


def test_palettes_grey_and_black_and_white_are_converted() -> None:
    image = Image.fromarray(scene(32, 32))
    for mode in ("P", "L", "1"):
        converted = image.convert(mode)
        np.testing.assert_array_equal(decode(encode(converted, "PNG")).pixels, np.asarray(converted.convert("RGB")))


def test_transparency_is_put_on_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (200, 0, 0, 128)
    for format_ in ("PNG", "WEBP"):
        got = decode(encode(pixels, format_, **({"lossless": True, "exact": True} if format_ == "WEBP" else {}))).pixels
        assert got[0, 0].tolist() == [10, 20, 30]
        assert got[1, 1].tolist() == [255, 255, 255]
        assert levels(got[0, 1], [227, 127, 127])[0] <= 1
    grey = np.zeros((2, 2, 2), np.uint8)
    assert decode(encode(Image.fromarray(grey, "LA"), "PNG")).pixels[0, 0].tolist() == [255, 255, 255]


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 5, 6, 7])
    for format_ in ("GIF", "PNG"):
        assert decode(encode(image, format_, transparency=1)).pixels[0, 0].tolist() == [255, 255, 255], format_
        assert decode(encode(image, format_)).pixels[0, 0].tolist() == [5, 6, 7], format_
    rgb = encode(Image.new("RGB", (3, 3), (9, 9, 9)), "PNG", transparency=(9, 9, 9))
    assert decode(rgb).pixels[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("case", broken_images())
def test_broken_images_are_the_clients_errors(case: str) -> None:
    content, status, code = broken_images()[case]
    limits = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
    settings = Preprocessing(Resize("shortest_edge", 224))
    try:
        opened = open_image(content, limits)
        picture = decode_image(opened, settings.resized(opened.height, opened.width))
    except RequestError as error:
        expected = "empty_image" if code == "empty_request" else code
        assert (error.status, error.code) == (status, expected), case
        assert "send" in error.message or "HEIC" in error.message
    else:
        assert case == "one long line"  # which the handler refuses, by what it would be resized to
        assert picture.width > 50_000


@pytest.mark.parametrize("step", ["heed_depth", "to_rgb"])
def test_a_bug_of_ours_is_not_the_clients_error(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise TypeError((arguments, options))

    monkeypatch.setattr(images, step, fail)
    with pytest.raises(TypeError):
        decode(encode(scene(20, 20), "PNG"))


def test_bytes_are_counted_before_anything_is_read() -> None:
    content = encode(scene(20, 20), "PNG")
    with pytest.raises(
        PayloadTooLargeError, match=f"the image has {len(content)} bytes; this model takes 100"
    ) as caught:
        open_image(content, ImageLimits(100, 10_000))
    assert caught.value.code == "image_too_large"


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Any, *arguments: Any) -> None:
        raise AssertionError((image, arguments))

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(PayloadTooLargeError, match="100 x 90 pixels; this model takes 8999 in all"):
        open_image(png_header(100, 90), ImageLimits(10_000, 8_999))
    assert open_image(png_header(100, 90), ImageLimits(10_000, 9_000)).width == 100


def test_pillows_own_limit_makes_way_for_a_higher_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images.allow_pixels(500)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(PayloadTooLargeError, match="more pixels than any model here takes"):
        open_image(png_header(100, 90), ImageLimits(10_000, 9_000))
    images.allow_pixels(9_000)
    assert open_image(png_header(100, 90), ImageLimits(10_000, 9_000)).height == 90


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "astronaut.png", "scene"])
@pytest.mark.parametrize("scale", [3, 6, 12])
def test_reduced_decoding_moves_pixels_by_little(name: str, scale: int) -> None:
    """The bound that images.DRAFT_FACTOR names: of a photograph resized to 224, and of one that is scaled up first."""
    pixels = scene(300, 400, 3) if name == "scene" else photograph_pixels(name)
    large = Image.fromarray(pixels).resize(
        (pixels.shape[1] * scale // 2, pixels.shape[0] * scale // 2), Image.Resampling.LANCZOS
    )
    content = encode(large, "JPEG", quality=90)
    settings = Preprocessing(Resize("shortest_edge", 224), resample=3, crop=(224, 224), scale=(1, 1, 1))
    wanted = settings.resized(large.height, large.width)
    full, reduced = decode(content), decode(content, wanted)
    assert (reduced.height, reduced.width) == (large.height, large.width)
    if min(large.size) >= 4 * 224:
        assert min(reduced.image.size) < min(large.size)
    assert min(reduced.image.size) >= 2 * 224 or min(large.size) < 2 * 224
    largest, mean = levels(preprocess(full, settings), preprocess(reduced, settings))
    assert (largest <= 24, mean <= 1.5) == (True, True), (largest, mean)


@pytest.mark.parametrize("resample", range(6))
def test_reduced_decoding_of_fine_detail_under_every_filter(resample: int) -> None:
    """Stripes three pixels wide, as cloth or leaves have: the filters that average them lose them either way."""
    rows, columns = np.mgrid[0:1200, 0:1600]
    noise = np.random.default_rng(0).normal(0, 6, (1200, 1600, 3))
    fine = ((rows // 3 + columns // 3) % 2 * 60 - 30)[..., None] + noise
    content = encode(np.clip(scene(1200, 1600) + fine, 0, 255).astype(np.uint8), "JPEG", quality=92)
    settings = Preprocessing(Resize("exact", 224, 224), resample, scale=(1, 1, 1))
    full, reduced = decode(content), decode(content, settings.resized(1200, 1600), resample)
    takes_pixels = resample in (Image.Resampling.NEAREST, Image.Resampling.BOX)
    assert reduced.is_reduced == (not takes_pixels) == (settings.reduced(1200, 1600) is not None)
    largest, mean = levels(preprocess(full, settings), preprocess(reduced, settings))
    assert (largest <= 24, mean <= 1.5) == (True, True), (largest, mean)


@pytest.mark.parametrize("size", [(1281, 961), (961, 1281), (513, 385), (457, 1601)])
@pytest.mark.parametrize("resample", range(6))
def test_reduced_decoding_of_sizes_that_are_no_multiples(size: tuple[int, int], resample: int) -> None:
    """The last row and column of a reduced picture stand for a part of a pixel, and must not shift the others."""
    upright = Image.fromarray(photograph_pixels("astronaut.png")).resize(size, Image.Resampling.LANCZOS)
    crops = [Preprocessing(Resize("shortest_edge", 56), resample, crop=(48, 56), scale=(1, 1, 1))]
    for settings in (Preprocessing(Resize("exact", 56, 96), resample, scale=(1, 1, 1)), *crops):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            content = encode(upright, "JPEG", quality=95, exif=exif)
            full = decode(content)
            reduced = decode(content, settings.reduced(full.height, full.width), resample)
            assert reduced.is_reduced == (resample not in (Image.Resampling.NEAREST, Image.Resampling.BOX))
            largest, mean = levels(preprocess(full, settings), preprocess(reduced, settings))
            assert (largest <= 24, mean <= 1.5) == (True, True), (orientation, largest, mean)


def test_the_first_picture_of_a_phones_pair_is_taken() -> None:
    first, second = (Image.fromarray(scene(400, 600, seed)) for seed in (1, 2))
    content = encode(first, "MPO", save_all=True, append_images=[second])
    assert levels(decode(content).pixels, np.asarray(first))[1] < 3
    assert decode(content, (40, 60)).image.size == (150, 100)


def test_an_image_on_its_side_is_reduced_by_its_own_edges() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(scene(400, 1600), "JPEG", exif=exif)
    reduced = decode(content, (200, 50))
    assert (reduced.height, reduced.width) == (1600, 400)
    assert reduced.image.size == (100, 400)


@pytest.mark.parametrize("shape", [(5, 7, 3), (3, 5, 7)])
def test_pixels_sent_as_numbers(shape: tuple[int, ...]) -> None:
    pixels = np.arange(105).reshape(shape)
    picture = picture_from_pixels(pixels)
    assert (picture.height, picture.width) == (5, 7)
    expected = pixels if shape[2] == 3 else pixels.transpose(1, 2, 0)
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((4, 4), np.uint8), "invalid_shape"),
        (np.zeros((4, 4, 4), np.uint8), "invalid_shape"),
        (np.zeros((0, 4, 3), np.uint8), "invalid_shape"),
        (np.full((4, 4, 3), 256), "invalid_pixels"),
        (np.full((4, 4, 3), -1), "invalid_pixels"),
    ],
)
def test_numbers_that_are_no_pixels(pixels: Any, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        picture_from_pixels(pixels)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_a_real_photograph() -> None:
    picture = decode(photograph("rocket.jpg"))
    assert picture.pixels.shape == (427, 640, 3)
