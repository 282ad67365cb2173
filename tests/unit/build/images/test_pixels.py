"""What a model of segmentation gives of each pixel is found out, and the mask is what the model says."""

from __future__ import annotations

import base64
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import encode, scene
from tests.unit.build.images.served import NAMES, PIXELS, WRITERS, Segmenter, serve, write_onnx, write_script
from ts_handlers.errors import OperatorError
from ts_handlers.shapes import Array

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters

TASK = "image-segmentation"

OF_THREE = {
    "labels": lambda logits: logits,
    "labels last": lambda logits: logits.permute(0, 2, 3, 1),
    "probabilities": lambda logits: logits.softmax(1),
    "index": lambda logits: logits.argmax(1),
    "index [n, 1, h, w]": lambda logits: logits.argmax(1, keepdim=True),
    "index [n, h, w, 1] uint8": lambda logits: logits.argmax(1)[..., None].to(torch.uint8),
    "index as floats": lambda logits: logits.argmax(1).float(),
}
OF_ONE = {
    "logit": lambda logit: logit,
    "logit [n, h, w]": lambda logit: logit[:, 0],
    "probability": lambda logit: logit.sigmoid(),
    "probability [n, h, w, 1]": lambda logit: logit.sigmoid().permute(0, 2, 3, 1),
    "is above": lambda logit: logit > 0,
}


def mask_of(answer: Any) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))


def right_mask(labels: int) -> Array:
    with torch.no_grad():
        logits = Segmenter(labels=labels)(PIXELS)[0]
    return np.asarray(logits.argmax(0) if labels > 1 else logits[0] > 0, np.uint8)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("kind", OF_THREE)
def test_one_number_of_each_label_or_its_index(kind: str, backend: str, given: Path) -> None:
    served = serve(write_script(given, Segmenter(OF_THREE[kind])), given, TASK, backend=backend)
    np.testing.assert_array_equal(mask_of(served.answer()), right_mask(3))


@pytest.mark.parametrize("names", [("other", "object"), ("object",), None])
@pytest.mark.parametrize("kind", OF_ONE)
def test_one_number_a_pixel(kind: str, names: tuple[str, ...] | None, given: Path) -> None:
    path = write_onnx(given, Segmenter(OF_ONE[kind], labels=1))
    if kind == "is above" and names != ("other", "object"):
        with pytest.raises(OperatorError, match="index of|indices of labels|whole numbers from 0 to 1, and 1 labels"):
            serve(path, given, TASK, names=names)
        return
    answer = serve(path, given, TASK, names=names).answer()
    np.testing.assert_array_equal(mask_of(answer), right_mask(1))
    called = ("0", "1") if names is None else names if len(names) == 2 else ("background", *names)
    assert {segment["label"]: segment["index"] for segment in answer["segments"]} == dict(
        zip(called, (0, 1), strict=True)
    )


@pytest.mark.parametrize("form", [name for name in WRITERS if name != "onnx"])
def test_the_mask_of_a_mapping(form: str, given: Path) -> None:
    write, backend = WRITERS[form]
    module = Segmenter(lambda logits: OrderedDict(out=logits, aux=-logits))
    served = serve(write(given, module), given, TASK, backend=backend)
    np.testing.assert_array_equal(mask_of(served.answer()), right_mask(3))


@pytest.mark.parametrize("kind", ["labels", "labels last", "index", "index [n, 1, h, w]"])
def test_pictures_that_keep_their_size(kind: str, given: Path) -> None:
    path = write_script(given, Segmenter(OF_THREE[kind]))
    unresized = {"do_resize": False, "do_normalize": False}
    served = serve(path, given, TASK, preprocessor_config=unresized)
    for height, width in ((20, 30), (31, 17)):
        levels = scene(height, width, height)
        with torch.no_grad():
            logits = Segmenter()(torch.from_numpy(levels.transpose(2, 0, 1)[None].astype(np.float32) / 255))
        mask = mask_of(served.answer(encode(levels, "PNG")))
        assert (mask != logits[0].argmax(0).numpy()).mean() < 0.01  # where two labels are as good as equal


def test_indices_are_taken_from_the_nearest_position(given: Path) -> None:
    served = serve(write_onnx(given, Segmenter(OF_THREE["index"])), given, TASK)
    large = np.repeat(np.repeat(scene(16, 24, 1), 4, 0), 4, 1)
    mask = mask_of(served.answer(encode(large, "PNG")))
    assert mask.shape == (64, 96)
    np.testing.assert_array_equal(mask, np.repeat(np.repeat(mask[::4, ::4], 4, 0), 4, 1))


@pytest.mark.parametrize(
    ("tail", "names", "message"),
    [
        (OF_THREE["labels"], ("a", "b"), r"\[1, 3, 16, 24\], which is 3 labels, and 2 labels are named"),
        (OF_THREE["labels last"], ("a",), r"\[1, 16, 24, 3\], which is .* labels, and 1 labels are named"),
        (OF_THREE["index"], ("a", "b"), "whole numbers from 0 to 2, and 2 labels are named"),
        (OF_THREE["index"], None, "indices of labels, and not how many labels there are"),
        (lambda logits: (logits[:, :1] > 0).to(torch.uint8) * 255, ("a", "b"), "whole numbers from 0 to 255"),
        (lambda logits: logits[:, :1].sigmoid() * 255, ("a", "b"), "neither probabilities, from 0 to 1, nor logits"),
        (lambda logits: logits[:, :1], NAMES, r"one number a pixel, which is 2 labels, and 3 labels are named"),
        (lambda logits: logits.mean((2, 3)), NAMES, r"of the shape \[1, 3\]; image-segmentation needs"),
        (lambda logits: (logits, logits + 1), NAMES, "2 of these could be it"),
    ],
)
def test_what_is_refused(tail: Any, names: tuple[str, ...] | None, message: str, given: Path) -> None:
    with pytest.raises(OperatorError, match=message):
        serve(write_onnx(given, Segmenter(tail)), given, TASK, names=names)
