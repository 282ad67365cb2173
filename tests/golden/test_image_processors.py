"""Pictures become what transformers' image processors make of them.

Its fast processors need torchvision, of which there is no build for the tests' torch. What they compute with is torch's own
antialiased interpolation of 8-bit pixels, so that is what the second test compares with.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.pictures import photograph_pixels, scene
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
