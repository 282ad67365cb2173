"""Pictures become what transformers' image processors make of them.

Its fast processors need torchvision, of which there is no build for the tests' torch. What they compute with is torch's own
antialiased interpolation of 8-bit pixels, so that is what the second test compares with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.pictures import photograph_pixels, scene
from ts_handlers.build.forms.processor import read_preprocessor
from ts_handlers.errors import OperatorError
from ts_handlers.images import picture_from_pixels
from ts_handlers.preprocessing import Preprocessing, Resize, preprocess
from ts_handlers.preprocessor_config import parse_preprocessing

SLOW = 1e-5
"""Largest difference from processors that resize with Pillow, in the units of the model's input."""

FAST_LEVELS = 2
"""Largest difference from torch's interpolation in levels of 256, which rounds otherwise."""

PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "convnext-384": ("ConvNextImageProcessor", {}),
    "clip": ("CLIPImageProcessor", {}),
    "detr": ("DetrImageProcessor", {"size": {"shortest_edge": 240, "longest_edge": 400}}),
    "segformer": ("SegformerImageProcessor", {"size": {"height": 160, "width": 128}}),
    "efficientnet": (
        "EfficientNetImageProcessor",
        {"do_center_crop": True, "rescale_offset": True, "rescale_factor": 1 / 127.5},
    ),
    "mobilevit": ("MobileViTImageProcessor", {"crop_size": {"height": 200, "width": 192}}),
    "rtdetr": ("RTDetrImageProcessor", {}),
    "yolos": ("YolosImageProcessor", {"size": {"shortest_edge": 240, "longest_edge": 400}}),
    "mobilenet": ("MobileNetV2ImageProcessor", {}),
    "deit": ("DeiTImageProcessor", {}),
    "beit": ("BeitImageProcessor", {}),
    "dpt": ("BitImageProcessor", {}),
}


def pictures() -> list[Any]:
    sizes = [(224, 224), (300, 401), (511, 333), (97, 640), (64, 50)]
    made = [scene(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    return [*made, photograph_pixels("chelsea.png"), photograph_pixels("coffee.png")]


@pytest.mark.parametrize("name", PROCESSORS)
def test_equal_to_transformers_own(name: str) -> None:
    class_name, changes = PROCESSORS[name]
    processor = getattr(transformers, f"{class_name}Pil")(**changes)
    settings = parse_preprocessing(json.loads(processor.to_json_string()), name)
    compared = 0
    for pixels in pictures():
        # a picture smaller than its crop is placed as the fast processors place it, which is not where the slow ones do
        height, width = settings.resized(*pixels.shape[:2])
        if settings.crop is not None and (height < settings.crop[0] or width < settings.crop[1]):
            continue
        compared += 1
        theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        ours = preprocess(picture_from_pixels(pixels), settings)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=SLOW * max(1, np.abs(theirs).max()))
    assert compared == len(pictures())


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

DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"image_processor_type": f"{name}ImageProcessor"}
    for name in (
        *(
            "Beit",
            "Bit",
            "CLIP",
            "ConditionalDetr",
            "ConvNext",
            "DPT",
            "DeformableDetr",
            "DeiT",
            "Detr",
            "EfficientNet",
        ),
        *(
            "Gemma3",
            "Levit",
            "MobileNetV1",
            "MobileNetV2",
            "MobileViT",
            "PoolFormer",
            "Pvt",
            "RTDetr",
            "Segformer",
            "Siglip",
        ),
        *("TextNet", "ViT", "Yolos"),
    )
}
DEFAULTS["MobileViT"] |= {"crop_size": 160}  # its own is larger than what it resizes to
"""Files that name a class alone: each class of the models that we have tasks for, but for those that are refused."""


@pytest.mark.parametrize("name", [*OLD_FORMS, *DEFAULTS])
def test_equal_to_what_the_installed_class_makes_of_the_file(name: str, tmp_path: Path) -> None:
    values = {**OLD_FORMS, **DEFAULTS}[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    for settings in (parse_preprocessing(values, name), read_preprocessor(tmp_path, None)[1]):
        compared = 0
        for pixels in pictures():
            height, width = settings.resized(*pixels.shape[:2])
            if settings.crop is not None and (height < settings.crop[0] or width < settings.crop[1]):
                continue
            compared += 1
            theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
            ours = preprocess(picture_from_pixels(pixels), settings)
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=SLOW * max(1, np.abs(theirs).max()))
        assert compared >= 5


@pytest.mark.parametrize("name", ["Donut", "ImageGPT", "Perceiver", "Siglip2"])
def test_what_a_class_does_otherwise_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    values = {"image_processor_type": f"{name}ImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OperatorError, match=f"{name}ImageProcessor|is not known"):
        read_preprocessor(tmp_path, None)


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
