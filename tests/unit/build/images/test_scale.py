"""Pictures are scaled once, by the preprocessing or by the model, and whole numbers are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.build.images.served import (
    LEVELS,
    NAMES,
    PIXELS,
    PLAIN,
    WRITERS,
    Classifier,
    serve,
    write_exported,
    write_onnx,
    write_script,
)
from ts_handlers.build.image_files.scale import OwnScale
from ts_handlers.errors import OperatorError, RequestError
from ts_handlers.runtime.feeds import feed_as
from ts_handlers.testing import predict

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters

UNSCALED = {**PLAIN, "do_rescale": False}
NORMALIZED = {**PLAIN, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
WHOLE = torch.from_numpy(LEVELS.transpose(2, 0, 1)[None].copy()).repeat(2, 1, 1, 1)


class Scaling(Classifier):
    """Takes levels from 0 to 255, of whatever type."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.logits(x.float() / 255)


class Normalizing(Classifier):
    """Takes numbers from 0 to 1, or, `scale` being 255, levels; normalizes them itself, channel by channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", scale * torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", scale * torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.logits((x - self.mean) / self.std)


def right(module: Classifier, pixels: torch.Tensor) -> Any:
    with torch.no_grad():
        return pytest.approx(dict(zip(NAMES, module(pixels)[0].softmax(0).tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize("form", [name for name in WRITERS if not name.startswith("script")])
@pytest.mark.parametrize("preprocessor", [UNSCALED, PLAIN])
def test_whole_numbers_are_levels(preprocessor: dict[str, Any], form: str, given: Path) -> None:
    write, backend = WRITERS[form]
    served = serve(write(given, Scaling(), WHOLE), given, preprocessor_config=preprocessor, backend=backend)
    assert served.answer() == right(Classifier(), PIXELS)
    assert bool(served.said) == (preprocessor is PLAIN)
    written = json.loads((served.handler.model_dir / "preprocessor_config.json").read_text())
    assert written["do_rescale"] is False


def test_whole_numbers_cannot_be_normalized(given: Path) -> None:
    path = write_onnx(given, Scaling(), WHOLE)
    with pytest.raises(OperatorError, match="takes pictures as whole numbers, and .* from -1 to 1; set do_rescale"):
        serve(path, given, preprocessor_config=NORMALIZED)


@pytest.mark.parametrize("write", [write_onnx, write_exported])
def test_a_clients_floats_are_not_cut_off(write: Any, given: Path) -> None:
    backend = "torch" if write is write_exported else "onnx"
    served = serve(write(given, Scaling(), WHOLE), given, preprocessor_config=UNSCALED, backend=backend)
    parts, whole = (PIXELS[0] * factor for factor in (1, 255))
    refused, answered = predict(served.handler, parts.tolist(), whole.round().tolist())
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_values")
    assert answered.json() == right(Classifier(), PIXELS)


@pytest.mark.parametrize("values", [[0.5], [-1.0], [256.0], [np.nan]])
def test_only_whole_numbers_become_integers(values: list[float]) -> None:
    with pytest.raises(RequestError, match="takes x as uint8"):
        feed_as("x", np.array(values, np.float32), np.uint8)


def test_other_types_are_fed_as_they_are() -> None:
    ids = np.array([1, 2])
    assert feed_as("x", ids, np.int64) is ids
    assert feed_as("x", np.array([0.5], np.float32), np.float16).dtype == np.float16
    assert feed_as("x", np.array([0.0, 255.0], np.float32), np.uint8).tolist() == [0, 255]


@pytest.mark.parametrize("write", [write_onnx, write_script, write_exported])
def test_what_scales_itself_is_not_scaled_before(write: Any, given: Path) -> None:
    path = write(given, Scaling(), PIXELS.repeat(2, 1, 1, 1))
    assert serve(path, given, preprocessor_config=UNSCALED).answer() == right(Classifier(), PIXELS)
    with pytest.raises(
        OperatorError, match=r"begins with x \* 0.00392 \+0, which is meant for levels from 0 to 255, .* 0 to 1"
    ):
        serve(path, given, preprocessor_config=PLAIN)
    with pytest.raises(OperatorError, match="Set do_rescale and do_normalize to false"):
        serve(path, given, preprocessor_config=NORMALIZED)


@pytest.mark.parametrize("write", [write_onnx, write_script, write_exported])
def test_what_normalizes_itself_is_not_normalized_before(write: Any, given: Path) -> None:
    path = write(given, Normalizing(), PIXELS.repeat(2, 1, 1, 1))
    assert serve(path, given, preprocessor_config=PLAIN).answer() == right(Normalizing(), PIXELS)
    for preprocessor in (NORMALIZED, UNSCALED):
        with pytest.raises(OperatorError, match="meant for numbers from 0 to 1, .* Set do_rescale to true and do_norm"):
            serve(path, given, preprocessor_config=preprocessor)
    of_levels = write(given, Normalizing(255), PIXELS.repeat(2, 1, 1, 1))
    assert serve(of_levels, given, preprocessor_config=UNSCALED).answer() == right(Normalizing(), PIXELS)
    with pytest.raises(OperatorError, match="meant for levels"):
        serve(of_levels, given, preprocessor_config=PLAIN)


@pytest.mark.parametrize("preprocessor", [PLAIN, UNSCALED, NORMALIZED])
def test_others_may_be_scaled_as_their_preprocessing_says(preprocessor: dict[str, Any], given: Path) -> None:
    pixels = {0: PIXELS, 1: PIXELS * 255, 2: PIXELS * 2 - 1}[[PLAIN, UNSCALED, NORMALIZED].index(preprocessor)]
    served = serve(write_script(given, Classifier()), given, preprocessor_config=preprocessor)
    assert served.answer() == right(Classifier(), pixels)


@pytest.mark.parametrize(
    ("operator", "other", "is_first"),
    [("sub", 1.0, False), ("div", 255.0, False), ("mul", -1.0, True), ("mul", np.full(5, 2.0), True)],
)
def test_what_does_not_scale_is_not_followed(operator: str, other: Any, *, is_first: bool) -> None:
    assert OwnScale(2.0, 1.0).then(operator, other, is_first=is_first) is None


def test_steps_are_one_factor_and_one_offset() -> None:
    steps: list[tuple[str, Any]] = [("div", 255.0), ("sub", torch.full((3, 1, 1), 0.5)), ("mul", 4.0), ("add", 1.0)]
    found: OwnScale | None = OwnScale()
    for operator, other in steps:
        assert found is not None
        found = found.then(operator, other, is_first=True)
    assert found is not None
    assert [found.factor, found.offset] == pytest.approx([4 / 255, -1.0])
