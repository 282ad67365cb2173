from __future__ import annotations

import numpy as np
import pytest
import torch

from ts_handlers.errors import InferenceError
from ts_handlers.imaging.boxes import Detections, format_detections, from_detector, from_queries

LABELS = ("cat", "dog", "cup")


def queries(num_logits: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    return dice.normal(0, 3, (9, num_logits)).astype(np.float32), dice.uniform(0, 1, (9, 4)).astype(np.float32)


def test_softmax_with_a_logit_for_no_object() -> None:
    logits, boxes = queries(4)
    found = from_queries(logits, boxes, 3)
    probabilities = torch.softmax(torch.from_numpy(logits), -1)[:, :-1]
    scores, labels = probabilities.max(-1)
    order = torch.argsort(-scores)
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-6)
    assert found.labels.tolist() == labels[order].tolist()
    x, y, w, h = boxes[order.numpy()].T
    np.testing.assert_allclose(found.boxes, np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1), atol=1e-6)


def test_sigmoid_where_labels_are_independent() -> None:
    logits, boxes = queries(3)
    found = from_queries(logits, boxes, 3)
    scores = torch.sigmoid(torch.from_numpy(logits)).flatten()
    best, index = torch.topk(scores, 9)
    np.testing.assert_allclose(found.scores, best, atol=1e-6)
    assert found.labels.tolist() == (index % 3).tolist()
    np.testing.assert_allclose(found.boxes[:, 2] - found.boxes[:, 0], boxes[index.numpy() // 3, 2], atol=1e-6)


@pytest.mark.parametrize("shapes", [((9, 5), (9, 4)), ((9, 2), (9, 4)), ((9, 4), (8, 4)), ((9,), (9, 4))])
def test_outputs_of_another_shape(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(InferenceError, match=r"for 3 labels; index_to_name\.json must name every label"):
        from_queries(np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32), 3)


def test_numbers_that_are_not_finite() -> None:
    logits, boxes = queries(4)
    logits[0, 0] = np.nan
    with pytest.raises(InferenceError, match="nan or infinite"):
        from_queries(logits, boxes, 3)


def test_answers_are_in_pixels_of_the_image_that_was_sent() -> None:
    found = from_detector(
        np.array([1, 0]), np.array([0.5, 0.9], np.float32), np.array([[0, 0, 8, 4], [2, 1, 4, 2]], np.float32), (4, 8)
    )
    assert format_detections(found, LABELS, (40, 160), threshold=0.5, top_k=None) == [
        {"cat": [40.0, 10.0, 80.0, 20.0], "score": pytest.approx(0.9)},
        {"dog": [0.0, 0.0, 160.0, 40.0], "score": 0.5},
    ]


def test_threshold_and_top_k() -> None:
    found = Detections(np.array([0, 1, 2]), np.array([0.9, 0.6, 0.3], np.float32), np.zeros((3, 4), np.float32))

    def kept(threshold: float, top_k: int | None) -> list[str]:
        return [next(iter(item)) for item in format_detections(found, LABELS, (1, 1), threshold=threshold, top_k=top_k)]

    assert kept(0.5, None) == ["cat", "dog"]
    assert kept(0.0, 2) == ["cat", "dog"]
    assert kept(0.95, None) == []


def test_a_label_without_a_name() -> None:
    found = Detections(np.array([3]), np.array([0.9], np.float32), np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceError, match="found label 3 and there are names for 3"):
        format_detections(found, LABELS, (1, 1), threshold=0.5, top_k=None)
