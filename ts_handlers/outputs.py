"""Logits -> scores, hidden states -> vectors: pure functions on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError

Floats = NDArray[np.floating[Any]]
ScoreFunction = Literal["softmax", "sigmoid", "none"]
Pooling = Literal["mean", "mean_sqrt_len_tokens", "weightedmean", "cls", "lasttoken", "max"]

_MIN_TOKEN_COUNT = 1e-9
"""Smallest divisor of a mean, from sentence-transformers: a sequence without tokens pools to zeros."""

_MIN_NORM = 1e-12
"""Smallest divisor of a normalized vector, torch.nn.functional.normalize's `eps`."""


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Exponentiate and divide by the sum, shifted by the maximum so that no exponential overflows.

    A row that holds nan or +inf comes out as nan, silently: see `require_finite`.
    """
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), of any shape, without an exponential that overflows."""
    decay = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, decay) / (1 + decay))


def require_finite(array: NDArray[Any]) -> None:
    """Refuse what JSON cannot carry.

    Raises:
        InferenceError: 500, a value is nan or infinite.
    """
    finite = np.isfinite(array)
    if not finite.all():
        raise InferenceError(
            f"{finite.size - np.count_nonzero(finite)} of the {finite.size} values the model returned are nan or "
            "infinite; check the exported model, and its precision, on this input"
        )


def default_function(problem_type: str | None, num_labels: int) -> ScoreFunction:
    """Choose what turns logits into scores, by the rule of transformers' text-classification pipeline.

    Args:
        problem_type: The model's; None where its configuration names none.
        num_labels: How many labels it scores.
    """
    if problem_type == "regression":
        return "none"
    if problem_type == "multi_label_classification" or num_labels == 1:
        return "sigmoid"
    return "softmax"


def one_axis(values: NDArray[Any]) -> NDArray[Any]:
    """Drop the axes of one element around one of several: logits (labels, 1, 1) become (labels,)."""
    return values.reshape(-1) if values.size == max(values.shape, default=1) else values


def apply_function(logits: Floats, function: ScoreFunction) -> Floats:
    """Turn logits `(..., num_labels)`, of one sequence or of a batch, into float32 scores of the same shape."""
    single = np.asarray(logits, dtype=np.float32)
    if function == "softmax":
        return softmax(single)
    return sigmoid(single) if function == "sigmoid" else single


def score_labels(
    logits: Floats,
    labels: Sequence[str],
    function: ScoreFunction,
    top_k: int | None = None,
    threshold: float | None = None,
) -> dict[str, float]:
    """Score every label, best first; labels of equal score keep the model's order.

    Args:
        logits: `(num_labels,) float`.
        labels: Name of each logit.
        function: What turns logits into scores.
        top_k: Most labels returned; None: all.
        threshold: Smallest score returned; None: any.

    Raises:
        InferenceError: 500, there are not as many logits as labels, or a score is not finite.
    """
    require_labels(logits, labels)
    scores = apply_function(logits, function)
    require_finite(scores)
    ranked = np.argsort(-scores, kind="stable")[:top_k]
    values = scores.tolist()
    return {
        labels[index]: values[index] for index in ranked.tolist() if threshold is None or values[index] >= threshold
    }


def require_labels(logits: Floats, labels: Sequence[str]) -> None:
    """Refuse logits `(..., num_labels)` that the labels do not name one by one.

    Raises:
        InferenceError: 500, there are not as many logits as labels.
    """
    if not logits.ndim or logits.shape[-1] != len(labels):
        raise InferenceError(
            f"the model returned logits of shape {logits.shape} for {len(labels)} labels; "
            "index_to_name.json must name every logit, in the model's order"
        )


def pool(last_hidden_state: Floats, attention_mask: NDArray[Any] | None, mode: Pooling) -> Floats:
    """Make one vector of the tokens' vectors, as sentence-transformers' Pooling module does.

    Args:
        last_hidden_state: `(seq_len, hidden) float32`, or a batch of them, `(batch, seq_len, hidden)`.
        attention_mask: `(seq_len,)` or `(batch, seq_len)`: 1 a token, 0 padding; None: there is no padding.
        mode: "mean" of the tokens; "mean_sqrt_len_tokens": their sum over the root of their number; "weightedmean": the mean
            with weights 1, 2, 3 ...; "cls": the first token; "lasttoken"; "max" of each dimension over the tokens.

    Returns:
        `(hidden,) float32`, or `(batch, hidden)`. Without a single token: zeros (the means), -inf ("max").
    """
    if attention_mask is None:
        attention_mask = np.ones(last_hidden_state.shape[:-1], dtype=np.int64)
    is_token = attention_mask != 0
    if mode in ("cls", "lasttoken"):
        last = is_token.shape[-1] - 1 - np.argmax(is_token[..., ::-1], axis=-1)
        chosen = (np.argmax(is_token, axis=-1) if mode == "cls" else last)[..., None, None]
        return np.asarray(np.take_along_axis(last_hidden_state, chosen, axis=-2)[..., 0, :])
    if mode == "max":
        tokens = np.where(is_token[..., None], last_hidden_state, last_hidden_state.dtype.type(-np.inf))
        return np.asarray(tokens.max(axis=-2))
    weights = is_token.astype(last_hidden_state.dtype)
    if mode == "weightedmean":
        weights = weights * np.cumsum(weights, axis=-1)
    total = np.matmul(weights[..., None, :], last_hidden_state)[..., 0, :]
    count = np.maximum(weights.sum(axis=-1, keepdims=True), _MIN_TOKEN_COUNT)
    return np.asarray(total / (np.sqrt(count) if mode == "mean_sqrt_len_tokens" else count))


def embed(last_hidden_state: Floats, pooling: Pooling, *, normalize: bool, truncate_dim: int | None) -> Floats:
    """Return the embedding of one unpadded text, from its tokens' vectors `(seq_len, hidden)`.

    Args:
        last_hidden_state: The tokens' vectors.
        pooling: How they become one.
        normalize: Whether it is scaled to length 1.
        truncate_dim: Numbers that are kept, the first ones, after scaling as sentence-transformers does; None: all.

    Returns:
        `(hidden,) float32`, or `(truncate_dim,)`.
    """
    vector = pool(last_hidden_state, None, pooling)
    return (l2_normalize(vector) if normalize else vector)[:truncate_dim]


def l2_normalize(vectors: Floats) -> Floats:
    """Scale vectors `(..., hidden)` to length 1; one shorter than 1e-12 is divided by 1e-12."""
    norms = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(norms, _MIN_NORM))
