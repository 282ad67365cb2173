"""Texts an archive is asked, and what transformers' pipeline or sentence-transformers answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from ts_handlers.build.samples import SAMPLE_QUESTIONS, SAMPLE_TEXTS
from ts_handlers.build.source import Source
from ts_handlers.build.texts.tokenizer import ODD_TEXTS
from ts_handlers.build.verify.expected import Expected
from ts_handlers.config import HandlerConfig
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.outputs import embed
from ts_handlers.spans import best_answers, window_from_encoding

LENGTHS = (1, 4, 12, 24, 48, 80, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
"""Tokens of the texts; and one of as many tokens as the model takes."""

MOST_SECONDS = 5.0
"""A longer text is left out where the last one took the source longer."""

_WORDS = " ".join(SAMPLE_TEXTS).split()


def expected_texts(source: Source, config: HandlerConfig) -> list[Expected]:
    """Return texts of many kinds and lengths, ascending in length, with the source's answers."""
    answer = _ANSWERS[source.task](source, config)
    found: list[Expected] = []
    left_out: list[tuple[str, Exception]] = []
    for instance, shown in _instances(source, config):
        length = _num_tokens(source, instance)
        if not length or (length > _limit(source, config) and not _is_cut(source, config)):
            continue
        try:
            found.append(Expected(instance, answer(instance), length, shown))
        except Exception as failure:  # noqa: BLE001  # a model may refuse odd texts: one more separator, say
            left_out.append((shown, failure))
    if left_out and not found:
        shown, error = left_out[0]
        raise OperatorError(
            f"the source itself fails on {shown}: {type(error).__name__}: {first_line(error)}"
        ) from error
    for count in LENGTHS:
        started = time.perf_counter()
        text = _text_of(source, min(count, _limit(source, config)))
        instance = _as_instance(source, text)
        length = _num_tokens(source, instance)
        try:
            found.append(Expected(instance, answer(instance), length, f"a text of {length} tokens"))
        except Exception as failure:  # positions that the model does not have
            raise OperatorError(
                f"the source itself fails on a text of {length} tokens: {type(failure).__name__}: {first_line(failure)}; "
                "set tokenizer.max_length to what the model takes"
            ) from failure
        if count >= _limit(source, config) or time.perf_counter() - started > MOST_SECONDS:
            break
    return sorted(found, key=lambda item: item.length)


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


Answer = Callable[[Any], Any]


def _classify(source: Source, config: HandlerConfig) -> Answer:
    function = {"regression": "none", "multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
    kind = config.output.problem_type
    pipe = _pipeline("text-classification", source, config)

    def answer(instance: Any) -> dict[str, float]:
        pipe.model = source.unused_model()
        given = {} if kind is None else {"function_to_apply": function[kind]}
        found = pipe(instance, top_k=None, truncation=config.tokenizer.truncation, **given)
        return {item["label"]: float(item["score"]) for item in found}

    return answer


def _find_entities(source: Source, config: HandlerConfig) -> Answer:
    settings = config.output
    pipe = _pipeline("token-classification", source, config)
    given: dict[str, Any] = {
        "aggregation_strategy": settings.aggregation_strategy,
        "ignore_labels": list(settings.ignore_labels),
    }
    if settings.stride is not None:
        given["stride"] = settings.stride

    def answer(instance: Any) -> list[dict[str, Any]]:
        pipe.model = source.unused_model()
        return [{**item, "score": float(item["score"])} for item in pipe(instance, **given)]

    return answer


def _embed(source: Source, config: HandlerConfig) -> Answer:
    settings = config.output
    is_untouched = source.sentence is not None and all(
        getattr(settings, name) == value for name, value in source.sentence.output.items()
    )

    def answer(instance: Any) -> list[float]:
        if source.sentence is not None and is_untouched:
            return [float(number) for number in source.sentence.embed(instance)]
        hidden = _run(source, instance, config)["last_hidden_state"][0].numpy()
        vector = embed(hidden, settings.pooling, normalize=settings.normalize, truncate_dim=settings.truncate_dim)
        return [float(number) for number in vector]

    return answer


def _answer_questions(source: Source, config: HandlerConfig) -> Answer:
    """Return answers by the steps of transformers 4's pipeline, which 5 no longer has; a golden test compares with it."""
    settings = config.output
    window = settings.max_seq_len or min(_limit(source, config), 384)
    stride = min(window // 2, 128) if settings.doc_stride is None else settings.doc_stride

    def answer(instance: Any) -> Any:
        encoded = source.tokenizer(
            instance["question"],
            instance["context"],
            truncation="only_second",
            max_length=window,
            stride=stride,
            return_overflowing_tokens=True,
        )
        windows = []
        for index, encoding in enumerate(encoded.encodings):
            arrays = {name: torch.tensor([encoded[name][index]]) for name in source.input_names}
            with torch.inference_mode():
                outputs = source.unused_model()(**arrays, return_dict=True)
            start, end = (np.asarray(outputs[name][0].float()) for name in ("start_logits", "end_logits"))
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

    return answer


def _run(source: Source, text: str, config: HandlerConfig) -> Any:
    encoded = source.tokenizer(
        text, truncation=config.tokenizer.truncation, max_length=_limit(source, config), return_tensors="pt"
    )
    with torch.inference_mode():
        return source.unused_model()(**{name: encoded[name] for name in source.input_names}, return_dict=True)


def _pipeline(task: str, source: Source, config: HandlerConfig) -> Any:
    tokenizer = source.tokenizer
    tokenizer.model_max_length = _limit(source, config)
    return transformers.pipeline(task, model=source.model, tokenizer=tokenizer, device="cpu")


_ANSWERS: Mapping[str, Callable[[Source, HandlerConfig], Answer]] = {
    "text-classification": _classify,
    "token-classification": _find_entities,
    "feature-extraction": _embed,
    "question-answering": _answer_questions,
}
