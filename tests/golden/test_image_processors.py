"""Pictures become what transformers' image processors make of them.

Those that compute with torchvision need a build of it, of which there is none for the tests' torch. What they resize with is
torch's own antialiased interpolation of 8-bit pixels, so that is what a test compares with.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto import image_processing_auto, modeling_auto

from tests.pictures import photograph_pixels, scene
from ts_handlers.build.sources.processor import read_preprocessor
from ts_handlers.errors import ConfigError, OperatorError, RequestError
from ts_handlers.imaging.decoding import picture_from_pixels
from ts_handlers.imaging.preprocessing import Preprocessing, Resize, preprocess
from ts_handlers.imaging.processors.classes import is_known
from ts_handlers.imaging.processors.preprocessor_config import parse_preprocessing

SLOW = 1e-5
"""Largest difference from processors that resize with Pillow, in the units of the model's input."""

FAST_LEVELS = 2
"""Largest difference from torch's interpolation in levels of 256, which rounds otherwise."""


def pictures() -> list[Any]:
    sizes = [(224, 224), (300, 401), (511, 333), (97, 640), (64, 50), (33, 47), (7, 200), (120, 1), (1, 40)]
    made = [scene(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    return [*made, photograph_pixels("chelsea.png"), photograph_pixels("coffee.png")]


def equal(processor: Any, settings: Preprocessing, every: int = 1) -> int:
    """Compare on every n-th of the pictures; return how many both could take."""
    compared = 0
    for pixels in pictures()[::every]:
        try:
            ours = preprocess(picture_from_pixels(pixels), settings)
        except RequestError:
            continue  # nothing is left of it: a client's 400
        theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=SLOW * max(1, np.abs(theirs).max()))
        compared += 1
    return compared


OLD_FORMS: dict[str, dict[str, Any]] = {
    "mobilenet-2022": {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": 96, "crop_size": 80},
    "mobilevit-2022": {"feature_extractor_type": "MobileViTFeatureExtractor", "size": 96, "crop_size": 80},
    "yolos-2022": {"feature_extractor_type": "YolosFeatureExtractor", "size": 120, "max_size": 200},
    "detr-2022": {"feature_extractor_type": "DetrFeatureExtractor", "size": 120, "max_size": 200},
    "dpt-2022": {"feature_extractor_type": "DPTFeatureExtractor", "size": 100, "ensure_multiple_of": 16},
    "dpt-aspect": {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 96, "width": 128},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
    },
    "vit-list": {"image_processor_type": "ViTImageProcessor", "size": [96, 64]},
    "vit-of-others": {
        "image_processor_type": "ViTImageProcessor",
        "do_flip_channel_order": True,
        "rescale_offset": True,
    },
    "poolformer-square": {
        "image_processor_type": "PoolFormerImageProcessor",
        "size": 96,
        "crop_size": 80,
        "crop_pct": 0.8,
    },
    "levit-square": {
        "image_processor_type": "LevitImageProcessor",
        "size": {"height": 96, "width": 80},
        "crop_size": 64,
    },
    "efficientnet-raw": {"image_processor_type": "EfficientNetImageProcessor", "size": 96, "do_normalize": False},
    "segformer-crop": {"image_processor_type": "SegformerImageProcessor", "do_center_crop": True, "crop_size": 64},
    "textnet": {"image_processor_type": "TextNetImageProcessor", "size": {"shortest_edge": 90}},
}
"""Files as older releases wrote them, and settings that a class has rules of its own for, or ignores."""


def classes() -> dict[str, str | None]:
    """Return the processors of all models of our tasks -> those of them that resize with Pillow, by transformers."""
    tasks = (
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    )
    names = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    found = [names[model] for task in tasks for model in task if model in names]
    return {each.get("torchvision") or each["pil"]: each.get("pil") for each in found}


REFUSED = {
    *("DonutImageProcessor", "ImageGPTImageProcessor", "PPDocLayoutV2ImageProcessor", "PPDocLayoutV3ImageProcessor"),
    *("PPDocLayoutV4ImageProcessor", "PPOCRV5ServerDetImageProcessor", "Siglip2ImageProcessor"),
}
"""Classes that do what is not done here."""

ELSEWHERE = {"TimmWrapperImageProcessor"}
"""What reads no settings of its own, but those of timm."""

TORCHVISION_ALONE = {
    "PPLCNetImageProcessor",
    "RfDetrImageProcessor",
    "Sapiens2ImageProcessor",
    "Tipsv2DptImageProcessor",
}
"""Classes that cannot be loaded without torchvision; `test_processors_of_torchvision` has numbers of them."""

WITH_PILLOW = sorted(set(classes()) - REFUSED - ELSEWHERE - TORCHVISION_ALONE)


def test_every_class_is_in_the_table() -> None:
    for name, slow in classes().items():
        assert is_known({"image_processor_type": name}) or name in ELSEWHERE, name
        assert (slow is None) <= (name in REFUSED | TORCHVISION_ALONE), name


def write(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [*OLD_FORMS, *WITH_PILLOW])
def test_equal_to_what_the_installed_class_makes_of_the_file(name: str, tmp_path: Path) -> None:
    values = OLD_FORMS.get(name, {"image_processor_type": name})
    processor = transformers.AutoImageProcessor.from_pretrained(write(tmp_path, values))
    explicit, settings, *_ = read_preprocessor(tmp_path, None)
    assert settings == parse_preprocessing(values, name)
    assert parse_preprocessing(explicit, name) == settings
    assert equal(processor, settings) >= 7


def some_settings(dice: random.Random) -> dict[str, Any]:
    """Return settings as a file might have them, those of other classes among them."""
    edges = [48, 64, 90, 129]
    one, other = dice.choice(edges), dice.choice(edges)
    choices: dict[str, list[Any]] = {
        "size": [one, [one, other], {"height": one, "width": other}, {"shortest_edge": one}],
        "max_size": [150, 200],
        "default_to_square": [True, False],
        "crop_size": [40, 91, {"height": 60, "width": 45}, [50, 71]],
        "do_center_crop": [True, False, None],
        "do_resize": [True, False],
        "resample": [0, 1, 2, 3, 4, 5],
        "do_rescale": [True, False],
        "rescale_factor": [1 / 255, 1 / 127.5],
        "do_normalize": [True, False, None],
        "image_mean": [[0.1, 0.2, 0.3], 0.4],
        "image_std": [[0.3, 0.2, 0.5], 0.4],
        "do_pad": [True, False, None],
        "pad_size": [{"height": 1400, "width": 2600}, None],
        "size_divisor": [1, 16, 32],
        "crop_pct": [0.9, 0.75, 1.0],
        "do_flip_channel_order": [True, False],
        "rescale_offset": [True, False],
        "include_top": [True, False],
        "keep_aspect_ratio": [True, False],
        "ensure_multiple_of": [1, 14, 32],
        "pad_and_return_pixel_mask": [True, False],
    }
    choices["size"] += [{"shortest_edge": one, "longest_edge": 150}, {"max_height": one, "max_width": other}]
    return {key: dice.choice(values) for key, values in choices.items() if key == "size" or dice.random() < 0.3}


@pytest.mark.parametrize("name", WITH_PILLOW)
def test_equal_under_settings_of_all_kinds(name: str) -> None:
    dice, compared = random.Random(name), 0  # noqa: S311
    for _ in range(12):
        values = {"image_processor_type": name, **some_settings(dice)}
        try:
            settings = parse_preprocessing(values, name)
        except ConfigError:
            continue  # a size that this class does not take, or a crop without its size
        try:
            processor = getattr(transformers, f"{name}Pil")(**values)
            processor(Image.fromarray(scene(64, 64)), return_tensors="np")
        except (ValueError, TypeError, AttributeError):
            continue  # what it refuses
        compared += equal(processor, settings, every=2) > 0
    assert compared >= 3, compared


NUMBERS: dict[str, tuple[dict[str, Any], tuple[int, int], list[list[float]]]] = {
    "PPLCNet": ({}, (224, 224), [[-0.251, 0.258, -0.079], [1.632, 1.221, 0.304], [0.108, 0.52, -0.41]]),
    "RfDetr": (
        {"size": {"shortest_edge": 100, "longest_edge": 140}},
        (89, 140),
        [[-0.423, 0.258, 0.095], [-0.618, -0.878, -0.144], [-0.799, 0.546, 0.409]],
    ),
    "Sapiens2": (
        {"size": {"height": 64, "width": 48}},
        (64, 48),
        [[-0.423, 0.258, 0.095], [-0.594, -0.985, -0.288], [-0.782, 0.678, 0.374]],
    ),
    "Tipsv2Dpt": ({}, (448, 448), [[0.388, 0.514, 0.427], [0.345, 0.267, 0.388], [0.294, 0.565, 0.498]]),
}
"""What transformers 5.24 made of one picture: the pixels at 1/4, 1/4; 1/2, 3/4 and 3/4, 1/2 of height and width. Where its
code calls torchvision for the resizing and the crop, torch's functions of the same definition stood in."""


@pytest.mark.parametrize("name", NUMBERS)
def test_processors_of_torchvision(name: str, tmp_path: Path) -> None:
    values, size, expected = NUMBERS[name]
    write(tmp_path, {"image_processor_type": f"{name}ImageProcessor", **values})
    explicit, settings, *_ = read_preprocessor(tmp_path, None)
    assert parse_preprocessing(explicit, name) == settings
    made = preprocess(picture_from_pixels(scene(211, 333, 3)), settings)
    assert made.shape == (3, *size)
    found = [made[:, row * size[0] // 4, column * size[1] // 4] for row, column in ((1, 1), (2, 3), (3, 2))]
    np.testing.assert_allclose(found, expected, atol=1.1 * max(settings.scale))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_class_does_otherwise_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=f"{name}.* which is not done here; describe"):
        read_preprocessor(write(tmp_path, {"image_processor_type": name}), None)


def test_the_model_says_the_class_where_the_settings_do_not(tmp_path: Path) -> None:
    write(tmp_path, {"size": {"shortest_edge": 96}})
    (tmp_path / "config.json").write_text('{"model_type": "levit"}', encoding="utf-8")
    explicit, settings, *_ = read_preprocessor(tmp_path, None)
    assert explicit["image_processor_type"] == "LevitImageProcessor"
    assert settings.resize == Resize("shortest_edge", 109)


def test_a_class_that_is_not_in_the_table_is_taken_where_its_settings_say_all(tmp_path: Path) -> None:
    write(tmp_path, {"image_processor_type": "BlipImageProcessor", "size": 64})
    explicit, settings, *_ = read_preprocessor(tmp_path, None)
    assert parse_preprocessing(explicit, "p") == settings
    assert equal(transformers.BlipImageProcessorPil(size=64), settings) >= 7
    with pytest.raises(
        ConfigError, match="BlipImageProcessor is not known here, and do_resize, .* are not said; add them"
    ):
        parse_preprocessing({"image_processor_type": "BlipImageProcessor"}, "p")
    with pytest.raises(OperatorError, match="OfSomebody.* is not known here and cannot be loaded"):
        read_preprocessor(write(tmp_path, {"image_processor_type": "OfSomebodyImageProcessor"}), None)


def test_the_section_of_a_processor_goes_before_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"image_processor_type": "ViTImageProcessor", "size": 32})
    section = {"image_processor": {"image_processor_type": "ViTImageProcessor", "size": 48}}
    (tmp_path / "processor_config.json").write_text(json.dumps(section), encoding="utf-8")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    settings = read_preprocessor(tmp_path, None).preprocessing
    assert settings.fixed_size == (48, 48)
    assert equal(processor, settings) >= 7
    assert read_preprocessor(tmp_path, tmp_path / "processor_config.json").preprocessing == settings


@pytest.mark.parametrize(("mode", "resample"), [("bilinear", 2), ("bicubic", 3)])
def test_resizing_as_the_fast_processors_do(mode: str, resample: int) -> None:
    for pixels in pictures():
        settings = Preprocessing(Resize("bounded", 224, 500), resample, scale=(1, 1, 1))
        height, width = settings.resized(*pixels.shape[:2])
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
        theirs = torch.nn.functional.interpolate(tensor, size=(height, width), mode=mode, antialias=True)[0].numpy()
        difference = np.abs(preprocess(picture_from_pixels(pixels), settings) - theirs.astype(np.float32))
        assert difference.max() <= FAST_LEVELS
        assert difference.mean() <= 0.1
