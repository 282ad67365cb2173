from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from ts_handlers.errors import InferenceError
from ts_handlers.imaging import masks
from ts_handlers.imaging.masks import encode_mask, format_mask, label_pixels, run_lengths


def logits_of(num_labels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_labels, height, width)).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 8, 6), (150, 16, 16), (2, 1, 1), (3, 1, 9), (3, 9, 1), (1, 4, 4)])
@pytest.mark.parametrize("size", [(40, 50), (3, 5), (8, 6), (1, 1), (129, 67)])
@pytest.mark.parametrize("strip", [1, 2**21])
def test_equal_to_torchs_interpolation(
    shape: tuple[int, int, int], size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_STRIP_ELEMENTS", strip)
    logits = logits_of(*shape)
    resized = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear")[0]
    expected = resized.argmax(dim=0).numpy()
    mask = label_pixels(logits, size)
    assert mask.shape == size
    differs = mask != expected  # only where two labels are as good as equal
    best, chosen = resized.max(dim=0).values.numpy(), np.take_along_axis(resized.numpy(), mask[None].astype(int), 0)[0]
    assert (best - chosen)[differs].max(initial=0) < 1e-5
    assert differs.mean() < 0.001


def test_few_labels_are_interpolated_where_few_can_win() -> None:
    logits = logits_of(150, 8, 8)
    logits[7] += 100
    assert masks.possible_labels(logits).tolist() == [7]
    assert (label_pixels(logits, (64, 64)) == 7).all()


def test_a_label_can_win_between_positions_where_it_is_second() -> None:
    logits = np.array([[[10.0, 0.0]], [[0.0, 10.0]], [[6.0, 6.0]]], np.float32)
    assert label_pixels(logits, (1, 9))[0].tolist() == [0, 0, 0, 0, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("logits", [np.zeros((2, 3)), np.zeros((0, 3, 3)), np.full((2, 2, 2), np.nan)])
def test_logits_of_another_kind(logits: np.ndarray) -> None:
    with pytest.raises(InferenceError):
        label_pixels(logits.astype(np.float32), (4, 4))


def test_runs() -> None:
    assert run_lengths(np.array([[1, 1, 2], [2, 2, 0]], np.uint16)) == [[1, 2], [2, 3], [0, 1]]
    assert run_lengths(np.array([[4]], np.uint16)) == [[4, 1]]


@pytest.mark.parametrize("largest", [5, 300])
def test_png(largest: int) -> None:
    mask = np.random.default_rng(1).integers(0, largest + 1, (20, 30)).astype(np.uint16)
    mask[0, 0] = largest
    image = Image.open(io.BytesIO(base64.b64decode(encode_mask(mask, "png"))))
    assert image.format == "PNG"
    np.testing.assert_array_equal(np.asarray(image), mask)


def test_answer() -> None:
    mask = np.array([[1, 1, 2], [2, 2, 0]], np.uint16)
    answer = format_mask(mask, ("sky", "road", "car"), "rle")
    assert answer == {
        "height": 2,
        "width": 3,
        "mask": [[1, 2], [2, 3], [0, 1]],
        "segments": [
            {"label": "car", "index": 2, "pixels": 3},
            {"label": "road", "index": 1, "pixels": 2},
            {"label": "sky", "index": 0, "pixels": 1},
        ],
    }
    assert format_mask(mask, ("sky", "road", "car"), "list")["mask"].tolist() == mask.tolist()
    with pytest.raises(InferenceError, match="found label 2 and there are names for 2"):
        format_mask(mask, ("sky", "road"), "png")
