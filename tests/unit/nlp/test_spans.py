from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError
from ts_handlers.nlp.spans import Window, best_answers, best_spans, window_from_encoding

CONTEXT = "Ann lives in Rome"
CLS = 101


class QuestionEncoding:
    """[CLS] who ? [SEP] Ann lives in Ro ##me [SEP]."""

    def __init__(self) -> None:
        self.ids = [CLS, 5, 6, 102, 7, 8, 9, 10, 11, 102]
        self.offsets = [(0, 0), (0, 3), (3, 4), (0, 0), (0, 3), (4, 9), (10, 12), (13, 15), (15, 17), (0, 0)]
        self.word_ids = [None, 0, 1, None, 0, 1, 2, 3, 3, None]
        self.sequence_ids = [None, 0, 0, None, 1, 1, 1, 1, 1, None]


def window(start: dict[int, float], end: dict[int, float], **changes: Any) -> Window:
    """Return the window where tokens have these probabilities of being the first and the last, and others none."""
    encoding = QuestionEncoding()
    for name, value in changes.items():
        setattr(encoding, name, value)
    return window_from_encoding(encoding, logits_of(start), logits_of(end), CLS)


def logits_of(probabilities: dict[int, float]) -> NDArray[np.float32]:
    return np.asarray(np.log(np.array([probabilities.get(index, 1e-30) for index in range(10)], dtype=np.float32)))


def score(value: float) -> Any:
    return pytest.approx(value, abs=1e-6)


ANN_OR_ROME = window({4: 0.5, 7: 0.4, 0: 0.1}, {4: 0.3, 8: 0.5, 0: 0.2})


def test_candidates_are_the_context_and_cls() -> None:
    assert ANN_OR_ROME.is_candidate.tolist() == [True, *[False] * 3, *[True] * 5, False]


def test_the_best_span_is_the_product_of_its_ends() -> None:
    found = best_answers([ANN_OR_ROME], CONTEXT)
    assert found == [{"score": score(0.25), "start": 0, "end": 17, "answer": "Ann lives in Rome"}]
    assert [type(value) for value in found[0].values()] == [float, int, int, str]
    assert list(found[0]) == ["score", "start", "end", "answer"]


def test_no_answer_is_longer_than_max_answer_len() -> None:
    found = best_answers([ANN_OR_ROME], CONTEXT, max_answer_len=4, top_k=2)
    assert found == [
        {"score": score(0.2), "start": 13, "end": 17, "answer": "Rome"},
        {"score": score(0.15), "start": 0, "end": 3, "answer": "Ann"},
    ]


def test_answers_are_words_unless_tokens_are_asked_for() -> None:
    inside = window({8: 1.0}, {8: 1.0})
    assert best_answers([inside], CONTEXT)[0]["answer"] == "Rome"
    assert best_answers([inside], CONTEXT, align_to_words=False) == [
        {"score": score(1), "start": 15, "end": 17, "answer": "me"}
    ]


def test_spans_of_one_word_add_up() -> None:
    split = window({7: 0.5, 8: 0.5}, {7: 0.5, 8: 0.5})
    assert best_answers([split], CONTEXT) == [{"score": score(0.75), "start": 13, "end": 17, "answer": "Rome"}]


def test_windows_that_find_the_same_text_add_up_whatever_its_case() -> None:
    lower = window({4: 0.5}, {4: 0.5, 0: 0.5}, offsets=[(0, 0)] * 4 + [(7, 10)] + [(0, 0)] * 5)
    shouted = window({4: 1.0}, {4: 1.0}, offsets=[(0, 0)] * 4 + [(0, 3)] + [(0, 0)] * 5)
    found = best_answers([lower, shouted], "ANN or ann")
    assert found == [{"score": score(1.5), "start": 7, "end": 10, "answer": "ann"}]


def test_the_best_of_all_windows_wins() -> None:
    sure = window({5: 0.9, 0: 0.1}, {5: 0.9, 0: 0.1})
    unsure = window({4: 0.6, 0: 0.4}, {4: 0.6, 0: 0.4})
    for windows in ([sure, unsure], [unsure, sure]):
        assert best_answers(windows, CONTEXT)[0]["answer"] == "lives"


def test_the_empty_answer_has_the_lowest_score_any_window_gave_it() -> None:
    low = window({4: 0.4, 0: 0.6}, {4: 0.4, 0: 0.6})
    high = window({5: 0.3, 0: 0.7}, {5: 0.3, 0: 0.7})
    empty = {"score": score(0.36), "start": 0, "end": 0, "answer": ""}
    assert best_answers([low, high], CONTEXT, handle_impossible_answer=True) == [empty]
    assert best_answers([low, high], CONTEXT)[0] == {"score": score(0.16), "start": 0, "end": 3, "answer": "Ann"}


def test_question_and_special_tokens_are_never_an_answer() -> None:
    question = window({1: 0.98, 9: 0.01, 5: 0.01}, {2: 0.98, 9: 0.01, 5: 0.01})
    assert best_answers([question], CONTEXT) == [{"score": score(1), "start": 4, "end": 9, "answer": "lives"}]


def test_without_words_the_offsets_count() -> None:
    wordless = window({7: 1.0}, {8: 1.0}, word_ids=[None] * 10)
    assert best_answers([wordless], CONTEXT)[0]["answer"] == "Rome"


def test_a_word_is_cut_where_the_window_ends() -> None:
    cut = window({8: 1.0}, {8: 1.0}, sequence_ids=[None, 0, 0, None, None, None, None, None, 1, None])
    assert best_answers([cut], CONTEXT)[0]["answer"] == "me"


def test_a_short_context_can_have_fewer_answers_than_asked_for() -> None:
    found = best_answers([ANN_OR_ROME], CONTEXT, top_k=100)
    assert [answer["score"] for answer in found] == sorted((answer["score"] for answer in found), reverse=True)
    assert len({answer["answer"].lower() for answer in found}) == len(found) < 100


@pytest.mark.parametrize("top_k", [3, 13])
def test_as_many_spans_asked_for_as_there_are_pairs_of_tokens(top_k: int) -> None:
    logits = np.arange(6, dtype=np.float32)
    whole = Window(logits, logits, np.ones(6, dtype=bool), [(0, 1)] * 6, [None] * 6, [1] * 6)
    assert best_answers([whole], "a", top_k=top_k)[0]["answer"] == "a"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_an_error(value: float) -> None:
    broken = window({4: 1.0}, {4: 1.0})
    broken.end_logits[5] = value
    with pytest.raises(InferenceError, match="nan"):
        best_answers([broken], CONTEXT)


@pytest.mark.parametrize(("top_k", "max_answer_len"), [(0, 15), (1, 0)])
def test_counts_below_1_are_refused(top_k: int, max_answer_len: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        best_answers([ANN_OR_ROME], CONTEXT, top_k=top_k, max_answer_len=max_answer_len)


def brute_force(start: NDArray[Any], end: NDArray[Any], num_spans: int, max_answer_len: int) -> list[Any]:
    """Rank every pair of tokens, as the pipeline's decode_spans does; the first of equals first."""
    pairs = [
        (first, last, start[first] * end[last] if first <= last < first + max_answer_len else np.float32(0))
        for first in range(len(start))
        for last in range(len(end))
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:num_spans]


Probabilities = tuple[NDArray[np.float32], NDArray[np.float32]]


@st.composite
def probabilities(draw: st.DrawFn) -> Probabilities:
    num_tokens = draw(st.integers(1, 24))
    values = hnp.arrays(np.float32, num_tokens, elements=st.floats(0, 1, width=32), fill=st.nothing())
    return draw(values), draw(values)


@given(probabilities(), st.integers(1, 40), st.integers(1, 30))
def test_banded_scores_are_those_of_all_pairs(case: Probabilities, num_spans: int, max_answer_len: int) -> None:
    start, end = case
    firsts, lasts, scores = best_spans(start, end, num_spans, max_answer_len)
    expected = brute_force(start, end, num_spans, max_answer_len)
    assert scores.tolist() == [value for _, _, value in expected]
    for first, last, value in zip(firsts, lasts, scores, strict=True):
        assert value == (start[first] * end[last] if first <= last < first + max_answer_len else 0)
    assert len(set(zip(firsts.tolist(), lasts.tolist(), strict=True))) == len(expected)


@given(probabilities(), st.integers(1, 40), st.integers(1, 30))
def test_banded_spans_are_those_of_all_pairs(case: Probabilities, num_spans: int, max_answer_len: int) -> None:
    start, end = case
    expected = brute_force(start, end, num_spans + 1, max_answer_len)
    values = [value for _, _, value in expected]
    assume(num_spans == 1 or len(set(values)) == len(values))
    firsts, lasts, _ = best_spans(start, end, num_spans, max_answer_len)
    pairs = list(zip(firsts.tolist(), lasts.tolist(), strict=True))
    assert pairs == [(first, last) for first, last, _ in expected[:num_spans]]
