"""Token logits -> entities, equal to those of transformers' TokenClassificationPipeline (5.23, fast tokenizer).

A token's text, a word's tokens and a group's words live in parallel arrays; `np.ufunc.reduceat` joins neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ts_handlers.errors import InferenceError
from ts_handlers.outputs import Floats, require_finite, require_labels, softmax

Strategy = Literal["none", "simple", "first", "average", "max"]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text, or one window of it, and its tokens; a tokenizers Encoding has the lists under the same names.

    Attributes:
        text: The whole text.
        ids: Id of each token.
        tokens: Vocabulary entry of each id.
        offsets: First character of each token in `text`, and the one after its last.
        special_tokens_mask: 1 where a token is none of the text's ([CLS], padding).
    """

    text: str
    ids: Sequence[int]
    tokens: Sequence[str]
    offsets: Sequence[tuple[int, int]]
    special_tokens_mask: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Units:
    """Neighbouring stretches of a text (tokens, or words), each with the label that won it."""

    words: list[str]
    offsets: list[tuple[int, int]]
    label_ids: Ints
    scores: Floats


def aggregate_entities(
    logits: Floats,
    tokenized: TokenizedText,
    *,
    labels: Sequence[str],
    strategy: Strategy = "simple",
    ignore_labels: Collection[str] = ("O",),
    has_subword_prefix: bool,
    unk_token_id: int | None,
    tokens_to_string: Callable[[list[str]], str],
) -> list[dict[str, Any]]:
    """Label the tokens of a text, and join neighbours of one label.

    Args:
        logits: `(seq_len, num_labels) float`.
        tokenized: The tokens, `seq_len` of them.
        labels: Name of each label; "B-" and "I-" mark beginning and inside.
        strategy: "none": every token by itself; "simple": tokens are joined; "first", "average", "max": words are, each
            with the label of its first token, of the mean of its tokens' scores, of its token with the highest score.
        ignore_labels: Labels (without "B-" or "I-", but for "none") that are no entity.
        has_subword_prefix: Whether the tokenizer's model has a `continuing_subword_prefix` (WordPiece's "##"). Without
            one, a word is what spaces surround.
        unk_token_id: Id of the unknown token, which always begins a word and is shown as the text it stands for.
        tokens_to_string: Joins tokens to text: the tokenizer's decoder.

    Returns:
        In the text's order, {"entity_group", "score", "word", "start", "end"}, or, for "none", {"entity", "score",
        "index", "word", "start", "end"}: start and end in characters, index in tokens.

    Raises:
        InferenceError: 500, the logits fit neither the tokens nor the labels, or are not finite.
    """
    require_labels(logits, labels)
    if logits.ndim != 2 or len(logits) != len(tokenized.ids):
        raise InferenceError(
            f"the model returned logits of shape {logits.shape} for {len(tokenized.ids)} tokens; "
            "it must return one row a token"
        )
    indices = np.flatnonzero(np.asarray(tokenized.special_tokens_mask) == 0)
    if not indices.size:
        return []
    scores = softmax(np.asarray(logits, dtype=np.float32)[indices])
    require_finite(scores)
    words, is_subword = _read_tokens(tokenized, indices, has_subword_prefix, unk_token_id)
    tokens = _Units(
        words, [tokenized.offsets[index] for index in indices.tolist()], scores.argmax(axis=-1), scores.max(axis=-1)
    )
    if strategy == "none":
        return [
            {"entity": labels[label_id], "score": score, "index": index, "word": word, "start": start, "end": end}
            for label_id, score, index, word, (start, end) in zip(
                tokens.label_ids, tokens.scores.tolist(), indices.tolist(), tokens.words, tokens.offsets, strict=True
            )
            if labels[label_id] not in ignore_labels
        ]
    units = tokens if strategy == "simple" else _join_words(tokens, scores, is_subword, strategy, tokens_to_string)
    return _group(units, labels, ignore_labels, tokens_to_string)


def merge_windows(entities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose between the entities that overlapping windows of one text found at the same place.

    The longer one stays; of two equally long ones, the one with the higher score. Call it for more than one window
    only: an entity without a character at the head of the list comes out twice, as it does from the pipeline.

    Args:
        entities: Those of all windows, in the order of the windows.
    """
    ordered = sorted(entities, key=lambda entity: entity["start"])
    merged = ordered[:1]
    for entity in ordered:
        kept = merged[-1]
        if not kept["start"] <= entity["start"] < kept["end"]:
            merged.append(entity)
        elif (entity["end"] - entity["start"], entity["score"]) > (kept["end"] - kept["start"], kept["score"]):
            merged[-1] = entity
    return merged


def _read_tokens(
    tokenized: TokenizedText, indices: Ints, has_subword_prefix: bool, unk_token_id: int | None
) -> tuple[list[str], NDArray[np.bool_]]:
    """Return the text of each token that is not special, and whether it continues a word."""
    text, words, is_subword = tokenized.text, [], []
    for index in indices.tolist():
        word, (start, end) = tokenized.tokens[index], tokenized.offsets[index]
        if unk_token_id is not None and tokenized.ids[index] == unk_token_id:
            words.append(text[start:end])
            is_subword.append(False)
            continue
        words.append(word)
        if has_subword_prefix:
            # The prefix makes a continuing token longer than the text it stands for.
            is_subword.append(len(word) != len(text[start:end]))
        else:
            is_subword.append(start > 0 and " " not in text[start - 1 : start + 1])
    return words, np.array(is_subword)


def _join_words(
    tokens: _Units,
    scores: Floats,
    is_subword: NDArray[np.bool_],
    strategy: Literal["first", "average", "max"],
    tokens_to_string: Callable[[list[str]], str],
) -> _Units:
    """Join the tokens of each word, from their scores `(num_tokens, num_labels)`."""
    starts, stops = _runs(~is_subword[1:])
    if strategy == "average":
        means = np.add.reduceat(scores, starts, axis=0) / (stops - starts)[:, None].astype(np.float32)
        label_ids, best = means.argmax(axis=-1), means.max(axis=-1)
    else:
        chosen = starts if strategy == "first" else _first_maxima(tokens.scores, starts, stops)
        label_ids, best = tokens.label_ids[chosen], tokens.scores[chosen]
    pairs = list(zip(starts.tolist(), stops.tolist(), strict=True))
    words = [tokens_to_string(tokens.words[start:stop]) for start, stop in pairs]
    offsets = [(tokens.offsets[start][0], tokens.offsets[stop - 1][1]) for start, stop in pairs]
    return _Units(words, offsets, label_ids, best)


def _group(
    units: _Units, labels: Sequence[str], ignore_labels: Collection[str], tokens_to_string: Callable[[list[str]], str]
) -> list[dict[str, Any]]:
    """Join neighbours of one label, "B-" beginning anew; what has neither prefix counts as inside."""
    tags = [label[2:] if label.startswith(("B-", "I-")) else label for label in labels]
    tag_ids = np.array([tags.index(tag) for tag in tags])[units.label_ids]
    is_beginning = np.array([label.startswith("B-") for label in labels])[units.label_ids]
    starts, stops = _runs((tag_ids[1:] != tag_ids[:-1]) | is_beginning[1:])
    scores = np.add.reduceat(units.scores, starts) / (stops - starts).astype(np.float32)
    groups = []
    for start, stop, score in zip(starts.tolist(), stops.tolist(), scores.tolist(), strict=True):
        # The name is cut at the first hyphen, whatever is before it: "E-PER" and "S-PER" are groups "PER", apart.
        name = labels[units.label_ids[start]].split("-", 1)[-1]
        if name not in ignore_labels:
            word = tokens_to_string(units.words[start:stop])
            first, last = units.offsets[start][0], units.offsets[stop - 1][1]
            groups.append({"entity_group": name, "score": score, "word": word, "start": first, "end": last})
    return groups


def _runs(begins: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return where runs start and stop, from whether each element after the first begins one."""
    starts = np.concatenate(([0], np.flatnonzero(begins) + 1))
    return starts, np.append(starts[1:], len(begins) + 1)


def _first_maxima(values: Floats, starts: Ints, stops: Ints) -> Ints:
    """Return the index of the first highest value of each run."""
    maxima = np.repeat(np.maximum.reduceat(values, starts), stops - starts)
    hits = np.flatnonzero(values == maxima)
    return np.asarray(hits[np.searchsorted(hits, starts)])
