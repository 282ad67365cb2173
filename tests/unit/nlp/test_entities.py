from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError
from ts_handlers.nlp.entities import Strategy, TokenizedText, aggregate_entities, merge_windows

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
UNK = 9
STRATEGIES: list[Strategy] = ["none", "simple", "first", "average", "max"]


def tokenize(text: str, *tokens: str, ids: list[int] | None = None) -> TokenizedText:
    """Place WordPiece tokens in a text, between [CLS] and [SEP]."""
    offsets, position = [], 0
    for token in tokens:
        piece = token.removeprefix("##")
        found = text.find(piece, position)
        start, stop = (found, found + len(piece)) if found >= 0 else (position, position + 1)
        offsets.append((start, stop))
        position = stop
    return TokenizedText(
        text=text,
        ids=[1, *(ids or [5] * len(tokens)), 2],
        tokens=["[CLS]", *tokens, "[SEP]"],
        offsets=[(0, 0), *offsets, (0, 0)],
        special_tokens_mask=[1, *[0] * len(tokens), 1],
    )


def logits_of(*rows: dict[str, float]) -> NDArray[np.float32]:
    """Return logits whose softmax is each row's probabilities, and for the special tokens a B-LOC."""
    special = {"B-LOC": 1.0}
    table = [[row.get(label, 0.0) for label in LABELS] for row in (special, *rows, special)]
    return np.asarray(np.log(np.array(table, dtype=np.float32) + np.float32(1e-12)))


def join(tokens: list[str]) -> str:
    return " ".join(tokens).replace(" ##", "")


def aggregate(logits: NDArray[np.float32], tokenized: TokenizedText, strategy: Strategy, **kwargs: Any) -> Any:
    settings = {"labels": LABELS, "has_subword_prefix": True, "unk_token_id": UNK, "tokens_to_string": join, **kwargs}
    return aggregate_entities(logits, tokenized, strategy=strategy, **settings)


def score(value: float) -> Any:
    return pytest.approx(value, abs=1e-6)


MICROSOFT = tokenize("Ann at Microsoft", "Ann", "at", "Micro", "##soft")
MICROSOFT_LOGITS = logits_of(
    {"B-PER": 0.9, "O": 0.1}, {"O": 1.0}, {"B-LOC": 0.6, "I-PER": 0.4}, {"I-PER": 0.7, "I-LOC": 0.3}
)


def test_none_labels_every_token_and_indexes_it_with_the_special_ones() -> None:
    found = aggregate(MICROSOFT_LOGITS, MICROSOFT, "none")
    assert found == [
        {"entity": "B-PER", "score": score(0.9), "index": 1, "word": "Ann", "start": 0, "end": 3},
        {"entity": "B-LOC", "score": score(0.6), "index": 3, "word": "Micro", "start": 7, "end": 12},
        {"entity": "I-PER", "score": score(0.7), "index": 4, "word": "##soft", "start": 12, "end": 16},
    ]
    assert list(found[0]) == ["entity", "score", "index", "word", "start", "end"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("simple", [("LOC", 0.6, "Micro", 7, 12), ("PER", 0.7, "##soft", 12, 16)]),
        ("first", [("LOC", 0.6, "Microsoft", 7, 16)]),
        ("average", [("PER", 0.55, "Microsoft", 7, 16)]),
        ("max", [("PER", 0.7, "Microsoft", 7, 16)]),
    ],
)
def test_a_word_whose_tokens_disagree(strategy: Strategy, expected: list[tuple[Any, ...]]) -> None:
    found = aggregate(MICROSOFT_LOGITS, MICROSOFT, strategy)
    assert found[1:] == [
        {"entity_group": name, "score": score(value), "word": word, "start": start, "end": end}
        for name, value, word, start, end in expected
    ]
    assert list(found[0]) == ["entity_group", "score", "word", "start", "end"]
    assert [type(value) for value in found[0].values()] == [str, float, str, int, int]


def names(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entity["entity_group"], entity["word"]) for entity in found]


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (["B-PER", "I-PER", "I-PER"], [("PER", "a b c")]),
        (["B-PER", "B-PER", "I-PER"], [("PER", "a"), ("PER", "b c")]),
        (["I-PER", "I-LOC", "I-LOC"], [("PER", "a"), ("LOC", "b c")]),
        (["B-PER", "O", "I-PER"], [("PER", "a"), ("PER", "c")]),
        (["O", "O", "O"], []),
    ],
)
def test_prefixes_decide_where_an_entity_begins(sequence: list[str], expected: list[tuple[str, str]]) -> None:
    logits = logits_of(*({label: 1.0} for label in sequence))
    assert names(aggregate(logits, tokenize("a b c", "a", "b", "c"), "simple")) == expected


def test_a_group_scores_the_mean_of_its_tokens() -> None:
    logits = logits_of({"B-PER": 0.9, "O": 0.1}, {"I-PER": 0.6, "O": 0.4})
    assert aggregate(logits, tokenize("a b", "a", "b"), "simple")[0]["score"] == score(0.75)


def test_labels_without_a_known_prefix_continue_and_lose_what_is_before_a_hyphen() -> None:
    labels = ["O", "E-PER", "S-PER", "MISC", "X"]
    logits = logits_of({"B-PER": 1.0}, {"I-PER": 1.0}, {"B-LOC": 1.0}, {"B-LOC": 1.0})
    found = aggregate(logits, tokenize("a b c d", "a", "b", "c", "d"), "simple", labels=labels)
    assert names(found) == [("PER", "a"), ("PER", "b"), ("MISC", "c d")]


def test_ignored_labels_are_compared_without_their_prefix() -> None:
    logits = logits_of({"B-PER": 1.0}, {"O": 1.0})
    tokenized = tokenize("a b", "a", "b")
    assert names(aggregate(logits, tokenized, "simple", ignore_labels=["PER"])) == [("O", "b")]
    assert names(aggregate(logits, tokenized, "simple", ignore_labels=())) == [("PER", "a"), ("O", "b")]
    assert len(aggregate(logits, tokenized, "none", ignore_labels=["PER"])) == 2


def test_an_unknown_token_begins_a_word_and_is_shown_as_its_text() -> None:
    tokenized = tokenize("ab☃", "ab", "[UNK]", ids=[5, UNK])
    logits = logits_of({"B-PER": 1.0}, {"B-LOC": 1.0})
    assert names(aggregate(logits, tokenized, "first")) == [("PER", "ab"), ("LOC", "☃")]
    assert names(aggregate(logits, tokenized, "first", unk_token_id=None)) == [("PER", "ab [UNK]")]


@pytest.mark.parametrize(("has_subword_prefix", "expected"), [(True, ["a", "-", "b", "c"]), (False, ["a - b", "c"])])
def test_without_a_subword_prefix_words_are_what_spaces_surround(has_subword_prefix: bool, expected: list[str]) -> None:
    logits = logits_of(*[{"B-PER": 1.0}] * 4)
    found = aggregate(logits, tokenize("a-b c", "a", "-", "b", "c"), "first", has_subword_prefix=has_subword_prefix)
    assert [entity["word"] for entity in found] == expected


def test_max_takes_the_first_of_two_equally_sure_tokens() -> None:
    logits = logits_of({"B-PER": 0.75, "O": 0.25}, {"B-LOC": 0.75, "O": 0.25})
    assert names(aggregate(logits, tokenize("ab", "a", "##b"), "max")) == [("PER", "ab")]


def test_average_is_over_the_word_not_over_the_entity() -> None:
    logits = logits_of({"B-PER": 0.8, "O": 0.2}, {"B-PER": 0.4, "O": 0.6}, {"I-PER": 0.5, "O": 0.3, "B-LOC": 0.2})
    found = aggregate(logits, tokenize("ab c", "a", "##b", "c"), "average")
    assert found == [{"entity_group": "PER", "score": score(0.55), "word": "ab c", "start": 0, "end": 4}]


def test_a_text_of_special_tokens_only_has_no_entities() -> None:
    for strategy in STRATEGIES:
        assert aggregate(logits_of(), tokenize(""), strategy) == []


@pytest.mark.parametrize(("shape", "message"), [((4, 5), "3 tokens"), ((3, 4), "5 labels"), ((1, 3, 5), "3 tokens")])
def test_logits_of_another_shape_are_an_error(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        aggregate(np.zeros(shape, dtype=np.float32), tokenize("a", "a"), "simple")


def test_nan_is_an_error() -> None:
    logits = logits_of({"O": 1.0})
    logits[1, 0] = np.nan
    with pytest.raises(InferenceError, match="nan"):
        aggregate(logits, tokenize("a", "a"), "simple")


def entity(start: int, end: int, value: float) -> dict[str, Any]:
    return {"entity_group": "PER", "score": value, "word": "?", "start": start, "end": end}


def test_of_overlapping_entities_the_longest_stays_then_the_surest() -> None:
    long, short, after = entity(0, 9, 0.5), entity(3, 9, 0.9), entity(9, 12, 0.5)
    assert merge_windows([long, short, after]) == [long, after]
    assert merge_windows([short, after, long]) == [long, after]
    sure, unsure = entity(0, 4, 0.9), entity(0, 4, 0.8)
    assert merge_windows([unsure, sure]) == merge_windows([sure, unsure]) == [sure]
    assert merge_windows([]) == []


def test_what_overlaps_only_an_entity_that_was_replaced_is_replaced_as_well() -> None:
    chain = [entity(0, 3, 0.5), entity(2, 6, 0.5), entity(5, 10, 0.5)]
    assert merge_windows(chain) == [chain[2]]


@st.composite
def texts(draw: st.DrawFn) -> tuple[TokenizedText, NDArray[np.float32]]:
    pieces = draw(st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.booleans()), min_size=1, max_size=12))
    tokens = ["##" + piece if index and inside else piece for index, (piece, inside) in enumerate(pieces)]
    text, offsets = "", []
    for token in tokens:
        text += "" if token.startswith("##") or not text else " "
        piece = token.removeprefix("##")
        offsets.append((len(text), len(text) + len(piece)))
        text += piece
    values = draw(st.lists(st.floats(-5, 5, width=32), min_size=len(tokens) * 5, max_size=len(tokens) * 5))
    logits = np.array(values, dtype=np.float32).reshape(-1, 5)
    return TokenizedText(text, [5] * len(tokens), tokens, offsets, [0] * len(tokens)), logits


@given(texts(), st.sampled_from(STRATEGIES[1:]))
def test_groups_cover_every_word_once_and_in_order(case: tuple[TokenizedText, Any], strategy: Strategy) -> None:
    tokenized, logits = case
    found = aggregate(logits, tokenized, strategy, ignore_labels=())
    covered = [index for entity in found for index in range(entity["start"], entity["end"])]
    assert covered == sorted(set(covered))
    assert set(range(len(tokenized.text))) - set(covered) <= {i for i, c in enumerate(tokenized.text) if c == " "}
    assert all(0 < entity["score"] <= 1.000001 for entity in found)
    if strategy != "simple":
        assert [entity["word"] for entity in found] == [tokenized.text[e["start"] : e["end"]] for e in found]


@given(texts())
def test_where_no_word_is_split_the_strategies_agree(case: tuple[TokenizedText, Any]) -> None:
    tokenized, logits = case
    whole = TokenizedText(
        tokenized.text,
        tokenized.ids,
        [tokenized.text[start:end] for start, end in tokenized.offsets],
        tokenized.offsets,
        tokenized.special_tokens_mask,
    )
    simple, *others = (aggregate(logits, whole, strategy) for strategy in STRATEGIES[1:])
    assert all(other == simple for other in others)
