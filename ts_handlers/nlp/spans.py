"""Start and end logits -> answers, equal to those of transformers' QuestionAnsweringPipeline (4.57, fast tokenizer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ts_handlers.outputs import Floats, require_finite, softmax

_CONTEXT = 1
"""Sequence id of the context: every window is the question, then a part of the context."""

_MASKED_LOGIT = -10000.0
"""Logit of a token that cannot be in an answer; the pipeline's."""

_MAX_NULL_SCORE = 1_000_000.0
"""What the score of the empty answer is the minimum of, besides that of each window; the pipeline's."""

Spans = tuple[NDArray[np.intp], NDArray[np.intp], Floats]


class Encoding(Protocol):
    """What is read of a tokenizers Encoding."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    sequence_ids: list[int | None]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A question and a part of its context, as the model read them, and what it made of them.

    Attributes:
        start_logits: `(seq_len,) float`, of an answer's first token.
        end_logits: `(seq_len,) float`, of an answer's last token.
        is_candidate: `(seq_len,) bool`: the context's tokens and [CLS], the place of the empty answer.
        offsets: Of each token, its first character in question or context, and the one after its last.
        word_ids: Of each token, its word in question or context; None: a special token.
        sequence_ids: Of each token, 0 the question, 1 the context; None: a special token.
    """

    start_logits: Floats
    end_logits: Floats
    is_candidate: NDArray[np.bool_]
    offsets: Sequence[tuple[int, int]]
    word_ids: Sequence[int | None]
    sequence_ids: Sequence[int | None]


def window_from_encoding(
    encoding: Encoding, start_logits: Floats, end_logits: Floats, cls_token_id: int | None
) -> Window:
    """Read a window from a tokenizers Encoding of question and context, in this order and without padding."""
    is_candidate = np.array([sequence_id == _CONTEXT for sequence_id in encoding.sequence_ids], dtype=np.bool_)
    if cls_token_id is not None:
        is_candidate |= np.array(encoding.ids) == cls_token_id
    return Window(start_logits, end_logits, is_candidate, encoding.offsets, encoding.word_ids, encoding.sequence_ids)


def best_answers(
    windows: Sequence[Window],
    context: str,
    *,
    top_k: int = 1,
    max_answer_len: int = 15,
    handle_impossible_answer: bool = False,
    align_to_words: bool = True,
) -> list[dict[str, Any]]:
    """Find the spans of a context that answer best, over all its windows.

    A span's score is the product of its first token's start and its last token's end probability. Spans of the same
    text, in whatever case, are one answer: the first of them, with the sum of their scores.

    Args:
        windows: In the context's order.
        context: The whole context.
        top_k: Most answers returned.
        max_answer_len: Longest answer, in tokens.
        handle_impossible_answer: Whether the empty answer, with the lowest score any window gave it, is one of them.
        align_to_words: Whether answers begin and end with whole words.

    Returns:
        Best first, {"score", "start", "end", "answer"}: start and end in characters of the context.

    Raises:
        ValueError: `top_k` or `max_answer_len` is below 1.
        InferenceError: 500, a logit is not finite.
    """
    if min(top_k, max_answer_len) < 1:
        raise ValueError(f"top_k is {top_k} and max_answer_len {max_answer_len}; both must be 1 or more")
    # Aligned, several spans become one answer: the pipeline takes some more.
    num_spans = 2 * top_k + 10 if align_to_words else top_k
    answers: dict[str, dict[str, Any]] = {}
    null_score = _MAX_NULL_SCORE
    for window in windows:
        start, end = (_probabilities(logits, window) for logits in (window.start_logits, window.end_logits))
        null_score = min(null_score, float(start[0] * end[0]))
        start[0] = end[0] = 0
        words = _word_offsets(window) if align_to_words else {}
        for first, last, score in zip(*_candidates(start, end, window, num_spans, max_answer_len), strict=True):
            begin, stop = _characters(window, int(first), int(last), words)
            answer = context[begin:stop]
            known = answers.get(answer.lower())
            if known is not None:
                known["score"] += float(score)
            else:
                answers[answer.lower()] = {"score": float(score), "start": begin, "end": stop, "answer": answer}
    found = list(answers.values())
    if handle_impossible_answer:
        found.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
    return sorted(found, key=lambda answer: answer["score"], reverse=True)[:top_k]


def _probabilities(logits: Floats, window: Window) -> Floats:
    """Return the softmax over the candidates, `(seq_len,) float32`; any other token's is 0.

    Raises:
        InferenceError: 500, a candidate's logit is not finite.
    """
    masked = np.where(window.is_candidate, np.asarray(logits, dtype=np.float32), np.float32(_MASKED_LOGIT))
    probabilities = softmax(masked)
    require_finite(probabilities)
    return probabilities


def _candidates(start: Floats, end: Floats, window: Window, num_spans: int, max_answer_len: int) -> Spans:
    """Return the spans of highest score that begin and end with a candidate."""
    firsts, lasts, scores = best_spans(start, end, num_spans, max_answer_len)
    # The first token passes whether it is [CLS] or not: the pipeline's mask does so by accident.
    allowed = window.is_candidate.copy()
    allowed[0] = allowed.any()
    kept = allowed[firsts] & allowed[lasts]
    return firsts[kept], lasts[kept], scores[kept]


def best_spans(start: Floats, end: Floats, num_spans: int, max_answer_len: int) -> Spans:
    """Return the `num_spans` spans with the highest `start[first] * end[last]`, best first.

    Only the band first <= last < first + max_answer_len is computed. Where the band leaves the choice or the order open
    (equal scores, or fewer spans than asked for with a score above 0), `_best_spans_of_square` takes the pipeline's.

    Args:
        start: `(seq_len,) float32`, not negative.
        end: `(seq_len,) float32`, not negative.
        num_spans: How many.
        max_answer_len: Most tokens of a span.

    Returns:
        First token, last token and score of each span.
    """
    width = min(max_answer_len, len(end))
    padded = np.concatenate((end, np.zeros(width - 1, dtype=end.dtype)))
    scores = (start[:, None] * sliding_window_view(padded, width)).ravel()
    if num_spans == 1:
        best = np.array([scores.argmax()])
    elif num_spans >= len(scores):
        return _best_spans_of_square(start, end, num_spans, max_answer_len)
    else:
        negated = -scores
        best = np.argpartition(negated, num_spans)[: num_spans + 1]
        best = best[np.argsort(negated[best])]
        ranked = scores[best]
        if ranked[-2] == 0 or (ranked[:-1] == ranked[1:]).any():
            return _best_spans_of_square(start, end, num_spans, max_answer_len)
        best = best[:-1]
    firsts, extras = np.divmod(best, width)
    return firsts, firsts + extras, scores[best]


def _best_spans_of_square(start: Floats, end: Floats, num_spans: int, max_answer_len: int) -> Spans:
    """Choose from all pairs, spans that are none included, with a score of 0.

    Which of several equal scores numpy's unstable sorts return depends on the whole array they are given, so it must be
    the pipeline's, element by element.
    """
    square = np.tril(np.triu(start[:, None] * end[None, :]), max_answer_len - 1)
    negated = -square.ravel()
    best = np.arange(len(negated)) if num_spans >= len(negated) else np.argpartition(negated, num_spans)[:num_spans]
    best = best[np.argsort(negated[best])]
    firsts, lasts = np.divmod(best, len(end))
    return firsts, lasts, square[firsts, lasts]


def _word_offsets(window: Window) -> dict[int, tuple[int, int]]:
    """Return the characters of each word of the context, as far as it is in the window."""
    words: dict[int, tuple[int, int]] = {}
    for word_id, sequence_id, (start, end) in zip(window.word_ids, window.sequence_ids, window.offsets, strict=True):
        if sequence_id == _CONTEXT and word_id is not None:
            words[word_id] = (words.get(word_id, (start, end))[0], end)
    return words


def _characters(window: Window, first: int, last: int, words: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the characters of a span: those of its outer words where both have one, of its outer tokens otherwise."""
    first_word, last_word = window.word_ids[first], window.word_ids[last]
    if first_word is not None and last_word is not None and first_word in words and last_word in words:
        return words[first_word][0], words[last_word][1]
    return window.offsets[first][0], window.offsets[last][1]
