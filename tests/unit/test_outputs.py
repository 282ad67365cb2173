from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ts_handlers import outputs
from ts_handlers.errors import InferenceError

finite = st.floats(-100, 100, width=32)


def float32(*values: Any) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_softmax_of_known_logits() -> None:
    assert outputs.softmax(float32(0, math.log(3))).tolist() == pytest.approx([0.25, 0.75])


def test_softmax_of_a_batch_is_the_softmax_of_each_row() -> None:
    batch = float32([1, 2], [5, 5])
    assert outputs.softmax(batch)[1].tolist() == [0.5, 0.5]
    assert np.array_equal(outputs.softmax(batch)[0], outputs.softmax(batch[0]))


@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_softmax_is_a_distribution_however_large_the_logits(logits: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):  # a difference beyond float32 is -inf, and its exponential 0
        scores = outputs.softmax(logits)
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_sigmoid_neither_overflows_nor_loses_small_scores() -> None:
    scores = outputs.sigmoid(float32(-1000, -20, 0, math.log(4), 1000)).tolist()
    assert scores == pytest.approx([0, math.exp(-20), 0.5, 0.8, 1], rel=1e-6)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "function"),
    [
        (None, 1, "sigmoid"),
        (None, 2, "softmax"),
        ("single_label_classification", 2, "softmax"),
        ("single_label_classification", 1, "sigmoid"),
        ("multi_label_classification", 5, "sigmoid"),
        ("regression", 1, "none"),
        ("regression", 3, "none"),
    ],
)
def test_default_function_is_the_pipelines(problem_type: str | None, num_labels: int, function: str) -> None:
    assert outputs.default_function(problem_type, num_labels) == function


def test_labels_come_best_first() -> None:
    scores = outputs.score_labels(float32(0, math.log(6), math.log(3)), ["a", "b", "c"], "softmax")
    assert list(scores) == ["b", "c", "a"]
    assert list(scores.values()) == pytest.approx([0.6, 0.3, 0.1])
    assert {type(score) for score in scores.values()} == {float}


def test_labels_of_equal_score_keep_the_models_order() -> None:
    assert list(outputs.score_labels(float32(1, 2, 1, 2), ["a", "b", "c", "d"], "none")) == ["b", "d", "a", "c"]


def test_top_k_and_threshold_both_limit() -> None:
    logits, labels = float32(0.5, 0.25, 0.125), ["a", "b", "c"]
    assert outputs.score_labels(logits, labels, "none", top_k=2) == {"a": 0.5, "b": 0.25}
    assert outputs.score_labels(logits, labels, "none", threshold=0.25) == {"a": 0.5, "b": 0.25}
    assert outputs.score_labels(logits, labels, "none", top_k=1, threshold=0.125) == {"a": 0.5}
    assert outputs.score_labels(logits, labels, "none", threshold=0.6) == {}


@given(hnp.arrays(np.float32, st.integers(1, 12), elements=finite), st.integers(1, 15))
def test_top_k_is_a_prefix_of_the_whole_ranking(logits: NDArray[np.float32], top_k: int) -> None:
    labels = [f"label {index}" for index in range(len(logits))]
    ranking = outputs.score_labels(logits, labels, "sigmoid")
    scores = list(ranking.values())
    assert scores == sorted(scores, reverse=True)
    assert set(ranking) == set(labels)
    assert list(outputs.score_labels(logits, labels, "sigmoid", top_k=top_k).items()) == list(ranking.items())[:top_k]


def test_half_precision_logits_are_scored_in_single_precision() -> None:
    logits = np.array([1, 2], dtype=np.float16)
    assert outputs.apply_function(logits, "softmax").dtype == np.float32


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("function", ["softmax", "none"])
def test_a_score_json_cannot_carry_is_an_error(value: float, function: outputs.ScoreFunction) -> None:
    with pytest.raises(InferenceError, match="nan or infinite"):
        outputs.score_labels(float32(0, value), ["a", "b"], function)


def test_require_finite_counts_what_is_wrong() -> None:
    outputs.require_finite(float32(1, 2))
    with pytest.raises(InferenceError, match="2 of the 3 values") as caught:
        outputs.require_finite(float32(1, math.nan, -math.inf))
    assert caught.value.status == 500


@pytest.mark.parametrize("logits", [float32(1, 2, 3), np.array(1, dtype=np.float32)])
def test_logits_the_labels_do_not_name_are_an_error(logits: NDArray[np.float32]) -> None:
    with pytest.raises(InferenceError, match="2 labels"):
        outputs.score_labels(logits, ["a", "b"], "softmax")


HIDDEN = float32([1, -4], [3, -2], [100, 100])
MASK = np.array([1, 1, 0])


@pytest.mark.parametrize(("mode", "expected"), [("mean", [2, -3]), ("cls", [1, -4]), ("max", [3, -2])])
def test_pooling_leaves_padding_out(mode: outputs.Pooling, expected: list[float]) -> None:
    vector = outputs.pool(HIDDEN, MASK, mode)
    assert vector.tolist() == expected
    assert vector.dtype == np.float32


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_pooling_a_batch_pools_each_sequence(mode: outputs.Pooling) -> None:
    batch, masks = np.stack([HIDDEN, HIDDEN[::-1]]), np.stack([MASK, MASK[::-1]])
    pooled = outputs.pool(batch, masks, mode)
    for row in range(2):
        assert np.array_equal(pooled[row], outputs.pool(batch[row], masks[row], mode))


def test_cls_is_the_first_token_after_left_padding() -> None:
    assert outputs.pool(HIDDEN, np.array([0, 1, 1]), "cls").tolist() == [3, -2]


def test_the_mean_of_no_tokens_is_zero() -> None:
    assert outputs.pool(HIDDEN, np.zeros(3, dtype=np.int64), "mean").tolist() == [0, 0]


def test_l2_normalize() -> None:
    assert outputs.l2_normalize(float32([3, 4], [0, 0])).tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]


@given(
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3))
)
def test_normalized_vectors_have_length_1_or_0(vectors: NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(outputs.l2_normalize(vectors), axis=-1)
    assert np.allclose(lengths, vectors.any(axis=-1), atol=1e-5)
