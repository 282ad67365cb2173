from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pictures import scene
from ts_handlers.errors import ConfigError, RequestError
from ts_handlers.imaging.decoding import Picture, picture_from_pixels
from ts_handlers.imaging.preprocessing import Preprocessing, Resize, center_crop, pixel_mask, preprocess
from ts_handlers.imaging.processors.preprocessor_config import parse_preprocessing, read_preprocessing

VIT: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
    "image_processor_type": "ViTImageProcessor",
}
CONVNEXT = {**VIT, "size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"}


def parse(**changes: Any) -> Preprocessing:
    return parse_preprocessing({**VIT, **changes}, "preprocessor_config.json")


def test_the_common_case() -> None:
    settings = parse()
    assert settings.resize == Resize("exact", 224, 224)
    assert settings.fixed_size == (224, 224)
    assert settings.resample == 2
    values = preprocess(picture_from_pixels(scene(50, 80)), settings)
    assert values.shape == (3, 224, 224)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    resized = np.asarray(Image.fromarray(scene(50, 80)).resize((224, 224), Image.Resampling.BILINEAR)) / 255
    expected = (resized - VIT["image_mean"]) / VIT["image_std"]
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "resize"),
    [
        ({"size": 200}, Resize("exact", 200, 200)),
        (
            {"size": 200, "feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": None},
            Resize("shortest_edge", 200),
        ),
        (
            {"size": 800, "max_size": 1333, "image_processor_type": "DetrImageProcessor"},
            Resize("bounded", 800, 1333),
        ),
        ({"size": 200, "max_size": 1333}, Resize("exact", 200, 200)),
        ({"size": 200, "max_size": 300, "image_processor_type": None}, Resize("bounded", 200, 300)),
        ({"size": {"shortest_edge": 224, "longest_edge": None}}, Resize("shortest_edge", 224)),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, Resize("bounded", 800, 1333)),
        ({"size": {"max_height": 300, "max_width": 500}}, Resize("fit", 300, 500)),
        ({"do_resize": False}, None),
    ],
)
def test_sizes(changes: dict[str, Any], resize: Resize | None) -> None:
    assert parse(**changes).resize == resize


@pytest.mark.parametrize(
    ("resize", "given", "target"),
    [
        (Resize("exact", 10, 20), (300, 400), (10, 20)),
        (Resize("shortest_edge", 224), (300, 451), (224, 336)),
        (Resize("shortest_edge", 224), (451, 300), (336, 224)),
        (Resize("bounded", 800, 1333), (480, 640), (800, 1066)),
        (Resize("bounded", 800, 1333), (300, 900), (444, 1333)),
        (Resize("bounded", 800, 1333), (800, 1000), (800, 1000)),
        (Resize("fit", 50, 50), (100, 200), (25, 50)),
        (Resize("fit", 50, 50), (5000, 1), (50, 0)),
        (Resize("bounded", 800, 1333), (3000, 1), (1333, 0)),
        (Resize("bounded", 800, 1333, 16), (480, 640), (800, 1056)),
        (Resize("shortest_edge", 90, 0, 32), (300, 451), (96, 160)),
        (Resize("rounded_edge", 90), (300, 452), (90, 136)),
        (Resize("multiple", 0, 0, 32), (300, 451), (288, 448)),
        (Resize("nearest_edge", 96, 128, 32), (300, 451), (96, 160)),
    ],
)
def test_targets(resize: Resize, given: tuple[int, int], target: tuple[int, int]) -> None:
    assert resize.target(*given) == target


def test_convnext_crops_what_is_small_and_squeezes_what_is_large() -> None:
    small = parse_preprocessing(CONVNEXT, "p")
    assert (small.resize, small.crop) == (Resize("shortest_edge", 256), (224, 224))
    large = parse_preprocessing({**CONVNEXT, "size": {"shortest_edge": 384}}, "p")
    assert (large.resize, large.crop) == (Resize("exact", 384, 384), None)


def test_timm_and_torchvision() -> None:
    numbers = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    timm = parse_preprocessing(
        {"pretrained_cfg": {**numbers, "input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"}}, "p"
    )
    assert (timm.resize, timm.crop, timm.resample, timm.rounds_crop) == (
        Resize("shortest_edge", 248),
        (224, 224),
        3,
        True,
    )
    np.testing.assert_allclose(timm.shift, -2)
    squashed = parse_preprocessing({**numbers, "input_size": [3, 96, 96], "crop_pct": 1, "crop_mode": "squash"}, "p")
    assert squashed.resize == Resize("exact", 96, 96)
    preset = parse_preprocessing({**numbers, "resize_size": [232], "crop_size": 224}, "p")
    assert (preset.resize, preset.crop, preset.resample) == (Resize("shortest_edge", 232), (224, 224), 2)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (11, 13), (5, 20), (5, 7), (6, 6)])
@pytest.mark.parametrize("rounds", [False, True])
def test_center_crop(height: int, width: int, rounds: bool) -> None:
    pixels = np.arange(1, height * width + 1).reshape(height, width, 1)
    cropped = center_crop(pixels, (6, 8), rounds=rounds)
    assert cropped.shape == (6, 8, 1)
    assert (cropped > 0).sum() == min(height, 6) * min(width, 8)


@pytest.mark.parametrize("size", [(600, 801), (801, 600), (640, 640)])
@pytest.mark.parametrize(("edge", "crop"), [(96, (64, 81)), (64, (64, 64)), (60, (64, 48)), (40, (64, 64))])
@pytest.mark.parametrize("rounds", [False, True])
def test_only_the_middle_of_a_reduced_picture_is_resized(
    size: tuple[int, int], edge: int, crop: tuple[int, int], rounds: bool
) -> None:
    settings = Preprocessing(Resize("shortest_edge", edge), crop=crop, rounds_crop=rounds, scale=(1, 1, 1))
    height, width = size
    reduced = Picture(Image.fromarray(scene((height + 1) // 2, (width + 1) // 2)), height, width)
    rows, columns = settings.resized(height, width)
    whole = np.asarray(reduced.image.resize((columns, rows), Image.Resampling.BILINEAR))
    expected = center_crop(whole, crop, rounds=rounds).transpose(2, 0, 1)
    values = preprocess(reduced, settings)
    assert values.shape == (3, *crop)
    np.testing.assert_allclose(values, expected, atol=1)
    assert (values != expected).mean() < 0.05


@pytest.mark.parametrize(("larger_below", "row"), [(False, 2), (True, 1)])
def test_where_an_odd_border_is_larger(larger_below: bool, row: int) -> None:
    framed = center_crop(np.ones((1, 4, 1)), (4, 4), larger_below=larger_below)[..., 0]
    assert np.flatnonzero(framed.any(axis=1)).tolist() == [row]


def test_padding_to_a_size_is_zeros_after_all_else_and_the_mask_says_where() -> None:
    settings = parse(do_pad=True, pad_size={"height": 40, "width": 50}, size={"height": 30, "width": 20})
    assert (settings.fixed_size, settings.content_size(9, 9)) == ((40, 50), (30, 20))
    values = preprocess(picture_from_pixels(scene(60, 60)), settings)
    plain = preprocess(picture_from_pixels(scene(60, 60)), parse(size={"height": 30, "width": 20}))
    np.testing.assert_array_equal(values[:, :30, :20], plain)
    mask = pixel_mask(settings.content_size(60, 60), (40, 50))
    assert mask.sum() == 600
    assert not values[:, mask == 0].any()
    with pytest.raises(
        RequestError, match="the image has 60 x 41 pixels; this model takes 50 x 40: send a smaller"
    ) as caught:
        parse(do_pad=True, pad_size={"height": 40, "width": 50}, do_resize=False).resized(41, 60)
    assert caught.value.status == 400


def test_padding_to_a_multiple_is_on_all_sides() -> None:
    values = {**VIT, "image_processor_type": "DPTImageProcessor", "do_pad": True, "size_divisor": 32, "size": 90}
    settings = parse_preprocessing(values, "p")
    assert settings.fixed_size == settings.input_size(10, 10) == (96, 96)
    made = preprocess(picture_from_pixels(scene(60, 60)), settings)
    assert not made[:, :3].any()
    assert not made[:, :, -3:].any()
    assert made[:, 3:-3, 3:-3].all(axis=0).mean() > 0.9


def test_a_picture_of_which_nothing_is_left_is_the_clients_error() -> None:
    for resize in (Resize("fit", 50, 50), Resize("bounded", 80, 133, 16), Resize("multiple", 0, 0, 32)):
        with pytest.raises(RequestError, match="nothing is left of its shorter edge") as caught:
            Preprocessing(resize).resized(5000, 1)
        assert (caught.value.status, caught.value.code) == (400, "image_too_narrow")


def test_where_single_pixels_count_a_jpeg_is_not_reduced() -> None:
    resize = Resize("exact", 30, 40)
    for resample in (1, 2, 3, 5):
        assert Preprocessing(resize, resample).reduced(600, 800) == (30, 40)
    for settings in (
        Preprocessing(None),
        Preprocessing(resize, 0),
        Preprocessing(resize, 4),
        Preprocessing(resize, antialias=False),
        Preprocessing(resize, middle=(0.8, 0.8)),
    ):
        assert settings.reduced(600, 800) is None


def test_settings_of_other_classes_are_ignored_as_the_class_ignores_them() -> None:
    others = {"size_divisor": 32, "crop_pct": 0.9, "do_flip_channel_order": True, "include_top": True, "max_size": 99}
    assert parse(**others) == parse()


def test_blue_first() -> None:
    settings = parse(image_processor_type=None, do_flip_channel_order=True, do_normalize=False, do_resize=False)
    pixels = scene(4, 4)
    np.testing.assert_allclose(
        preprocess(picture_from_pixels(pixels), settings), pixels.transpose(2, 0, 1)[::-1] / 255, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resise": True}, "do_resise is not known"),
        ({"size": {"height": 224}}, r"size is \{'height': 224\}; it must be height and width"),
        ({"size": "large"}, "size is 'large'"),
        ({"size": {"height": 224, "width": 0}}, "above 0"),
        ({"resample": 9}, "resample is 9; it must be one of 0 to 5"),
        ({"image_mean": [0.5]}, "image_mean is .*three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std is .*above 0"),
        ({"image_processor_type": None, "image_std": None}, "image_std is None"),
        ({"do_normalize": "yes"}, "do_normalize is 'yes'; it must be true or false"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'; it must be a number"),
        ({"pad_size": 9.5, "do_pad": True}, "pad_size is 9.5; it must be sizes in pixels"),
        ({"size_divisor": 32, "image_processor_type": ""}, "size_divisor is 32, and no image_processor_type is named"),
        ({"crop_pct": 0.9, "image_processor_type": ""}, "crop_pct is 0.9, and no image_processor_type is named"),
        ({"image_processor_type": "OwnImageProcessor"}, "OwnImageProcessor is not known here, and do_center_crop"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "cuts pictures into patches, which is not done here"),
        ({"do_pan_and_scan": True, "image_processor_type": "Gemma3ImageProcessor"}, "cuts a picture into several"),
        (
            {"resample": 3, "image_processor_type": "RfDetrImageProcessor", "size": 9},
            "resample is 3; it must be 2, bilinear",
        ),
        ({"size": 40, "image_processor_type": "RTDetrImageProcessor"}, "size is 40; it must be height and width, or"),
        ({"size": [9, 9], "image_processor_type": "ConvNextImageProcessor"}, "it must be shortest_edge"),
        ({"size": {"shortest_edge": 9}, "image_processor_type": "DPTImageProcessor"}, "it must be height and width"),
        (
            {"size": {"max_height": 9, "max_width": 9}, "image_processor_type": "LevitImageProcessor"},
            "it must be height and width, or shortest_edge",
        ),
        ({"crop_pct": 2.0, "size": 9, "image_processor_type": "ConvNextImageProcessor"}, "crop_pct is 2.0; .* up to 1"),
        ({"ensure_multiple_of": 16, "size": 24, "image_processor_type": "DPTImageProcessor"}, "is halfway between two"),
        ({"do_center_crop": True}, "crop_size is None"),
        ({"input_size": [1, 28, 28]}, "a square of three channels"),
        ({"resize_size": [1, 2]}, "one size in pixels"),
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {**VIT, **changes}
    if "input_size" in changes or "resize_size" in changes:
        values = {**changes, "mean": [0, 0, 0], "std": [1, 1, 1], "crop_size": 8}
        values = {k: v for k, v in values.items() if "input_size" not in changes or k != "crop_size"}
    with pytest.raises(ConfigError, match=message):
        parse_preprocessing(values, "preprocessor_config.json")


def test_the_file(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    with pytest.raises(ConfigError, match=r"preprocessor_config.json is not in the archive"):
        read_preprocessing(file)
    file.write_text("[]")
    with pytest.raises(ConfigError, match="holds a list; it must be an object"):
        read_preprocessing(file)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_preprocessing(file)
    file.write_text(json.dumps(VIT))
    assert read_preprocessing(file) == parse()
