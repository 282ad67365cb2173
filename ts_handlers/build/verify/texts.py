"""Texts an archive is asked, and what transformers' pipeline or sentence-transformers answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import transformers

from ts_handlers.build.samples import SAMPLE_QUESTIONS, SAMPLE_TEXTS
from ts_handlers.build.sources.texts import Source
from ts_handlers.build.sources.tokenizer import ODD_TEXTS
from ts_handlers.build.verify.compare import Expected
from ts_handlers.config.sections import HandlerConfig
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.nlp.spans import best_answers, window_from_encoding
from ts_handlers.outputs import embed

LENGTHS = (1, 4, 12, 24, 48, 80, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
"""Tokens of the texts; and one of as many tokens as the model takes."""

MOST_SECONDS = 5.0
"""A longer text is left out where the last one took the source longer."""

_WORDS = " ".join(SAMPLE_TEXTS).split()


def expected_texts(source: Source, config: HandlerConfig) -> list[Expected]:
    """Return texts of many kinds and lengths, ascending in length, with the source's answers."""
    found: list[Expected] = []
    refused: OperatorError | None = None
    limit = _limit(source, config)
    for instance, shown in _instances(source, config):
        length = _num_tokens(source, instance)
        if length and (length <= limit or _is_cut(source, config)):
            try:
                found.append(_ask(source, config, instance, shown))
            except OperatorError as error:  # a model may refuse odd texts: one more separator, say
                refused = refused or error
    if refused and not found:
        raise refused
    for count in LENGTHS:
        started = time.perf_counter()
        instance = _as_instance(source, _text_of(source, min(count, limit)))
        try:
            found.append(_ask(source, config, instance, f"a text of {_num_tokens(source, instance)} tokens"))
        except OperatorError as error:  # positions that the model does not have
            raise OperatorError(f"{error}; set tokenizer.max_length to what the model takes") from error
        if count >= limit or time.perf_counter() - started > MOST_SECONDS:
            break
    return sorted(found, key=lambda item: item.length)


def _ask(source: Source, config: HandlerConfig, instance: Any, shown: str) -> Expected:
    try:
        answer = _ANSWERS[source.task](source, config, instance)
    except OperatorError:
        raise
    except Exception as error:  # models raise what they like
        said = f"{type(error).__name__}: {all_lines(error)}"
        raise OperatorError(f"the source itself fails on {shown}: {said}") from error
    return Expected(instance, answer, _num_tokens(source, instance), shown)


def _instances(source: Source, config: HandlerConfig) -> Iterator[tuple[Any, str]]:
    for text in (*SAMPLE_TEXTS, *ODD_TEXTS):
        yield _as_instance(source, text), repr(text[:60])
    if source.task == "text-classification":
        for text, pair in zip(SAMPLE_TEXTS, (*ODD_TEXTS[:4], *SAMPLE_TEXTS[1:]), strict=False):
            yield {"text": text, "text_pair": pair}, f"the pair {text[:30]!r}, {pair[:30]!r}"
    if source.task == "question-answering":
        context = " ".join(SAMPLE_TEXTS)
        for question in SAMPLE_QUESTIONS:
            yield {"question": question, "context": context}, f"the question {question!r}"
    if _is_cut(source, config) and source.task == "text-classification":
        yield " ".join(_WORDS * (2 * _limit(source, config) // len(_WORDS) + 1)), "a text that is cut"


def _as_instance(source: Source, text: str) -> Any:
    return {"question": SAMPLE_QUESTIONS[1], "context": text} if source.is_pair else text


def _limit(source: Source, config: HandlerConfig) -> int:
    return config.tokenizer.max_length or source.max_length


def _is_cut(source: Source, config: HandlerConfig) -> bool:
    """Say whether a text that is too long is cut, or read in windows."""
    return config.tokenizer.truncation or source.is_pair


def _num_tokens(source: Source, instance: Any) -> int:
    texts = tuple(instance.values()) if isinstance(instance, Mapping) else (instance,)
    return len(source.tokenizer(*texts)["input_ids"])


def _text_of(source: Source, length: int) -> str:
    """Return as many words as become at most so many tokens; at least one."""
    low, high = 1, max(2, length)
    words = _WORDS * (high // len(_WORDS) + 1)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _num_tokens(source, _as_instance(source, " ".join(words[:middle]))) <= length
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words[:low])


def _classify(source: Source, config: HandlerConfig, instance: Any) -> dict[str, float]:
    function = {"regression": "none", "multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
    kind = config.output.problem_type
    given = {} if kind is None else {"function_to_apply": function[kind]}
    found = _pipeline(source, config)(instance, top_k=None, truncation=config.tokenizer.truncation, **given)
    return {item["label"]: float(item["score"]) for item in found}


def _find_entities(source: Source, config: HandlerConfig, instance: Any) -> list[dict[str, Any]]:
    settings = config.output
    given: dict[str, Any] = {} if settings.stride is None else {"stride": settings.stride}
    found = _pipeline(source, config)(
        instance,
        aggregation_strategy=settings.aggregation_strategy,
        ignore_labels=list(settings.ignore_labels),
        **given,
    )
    return [{**item, "score": float(item["score"])} for item in found]


def _embed(source: Source, config: HandlerConfig, instance: Any) -> list[float]:
    settings, sentence = config.output, source.sentence
    if sentence is not None and all(getattr(settings, name) == value for name, value in sentence.output.items()):
        return [float(number) for number in sentence.embed(instance)]
    encoded = source.tokenizer(
        instance, truncation=config.tokenizer.truncation, max_length=_limit(source, config), return_tensors="pt"
    )
    hidden = source.run({name: encoded[name].numpy() for name in source.input_names})["last_hidden_state"][0]
    vector = embed(hidden, settings.pooling, normalize=settings.normalize, truncate_dim=settings.truncate_dim)
    return [float(number) for number in vector]


def _answer_question(source: Source, config: HandlerConfig, instance: Any) -> Any:
    """Return answers by the steps of transformers 4's pipeline, which 5 no longer has; a golden test compares with it."""
    settings = config.output
    window = settings.max_seq_len or min(_limit(source, config), 384)
    encoded = source.tokenizer(
        instance["question"],
        instance["context"],
        truncation="only_second",
        max_length=window,
        stride=min(window // 2, 128) if settings.doc_stride is None else settings.doc_stride,
        return_overflowing_tokens=True,
    )
    windows = []
    for index, encoding in enumerate(encoded.encodings):
        outputs = source.run({name: np.asarray([encoded[name][index]], np.int64) for name in source.input_names})
        start, end = outputs["start_logits"][0], outputs["end_logits"][0]
        windows.append(window_from_encoding(encoding, start, end, source.tokenizer.cls_token_id))
    found = best_answers(
        windows,
        instance["context"],
        top_k=settings.top_k,
        max_answer_len=settings.max_answer_len,
        handle_impossible_answer=settings.handle_impossible_answer,
        align_to_words=settings.align_to_words,
    )
    return found[0] if len(found) == 1 else found


def _pipeline(source: Source, config: HandlerConfig) -> Any:
    """Return transformers' own; a new one for each text, since some models remember those before."""
    source.tokenizer.model_max_length = _limit(source, config)
    return transformers.pipeline(source.task, model=source.unused_model(), tokenizer=source.tokenizer, device="cpu")


_ANSWERS: Mapping[str, Callable[[Source, HandlerConfig, Any], Any]] = {
    "text-classification": _classify,
    "token-classification": _find_entities,
    "feature-extraction": _embed,
    "question-answering": _answer_question,
}
