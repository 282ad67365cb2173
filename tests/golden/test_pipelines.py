"""The handlers say what transformers' own pipelines say of the same folder, whatever a batch is made of."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import ts_handlers
from tests.golden import reference as golden
from tests.model_dirs import TASK_OF, serialized_file
from ts_handlers.config.tasks import TASKS
from ts_handlers.testing import load_handler, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

TRANSFORMERS_4 = Path(sys.prefix) / "transformers4"
"""transformers 4.57, which has the question-answering pipeline; scripts/test installs it beside the environment."""

TOLERANCE = 1e-4


def reference(task: str, checkpoint: Path, inputs: list[Any], **kwargs: Any) -> list[Any]:
    """Run transformers' pipeline in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pipelines warn of what they were asked to do
        return golden.run(task, str(checkpoint), inputs, **kwargs)


def old_reference(task: str, checkpoint: Path, inputs: list[Any], folder: Path, **kwargs: Any) -> list[Any]:
    """Run transformers 4's pipeline, in a process of its own."""
    if not TRANSFORMERS_4.is_dir():
        pytest.fail(f"{TRANSFORMERS_4.name} is not installed beside the environment; run scripts/test")
    request, response = folder / "request.json", folder / "response.json"
    request.write_text(json.dumps({"inputs": inputs, "kwargs": kwargs}), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", golden.__file__, task, str(checkpoint), str(request), str(response)]
    environment = {**os.environ, "PYTHONPATH": str(TRANSFORMERS_4)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return list(json.loads(response.read_text(encoding="utf-8")))


def handlers(
    model_dirs: ModelDirs, kind: str, output: dict[str, Any], backend: str = "onnx", **tokenizer: Any
) -> list[Any]:
    """Load the handler of a kind with each of several ways to pad and to group."""
    folder = model_dirs.get(kind, backend=backend)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config["handler"]["output"].update(output)
    config["handler"]["tokenizer"].update(tokenizer)
    config["handler"] |= {"warmup": {"enabled": False}, "limits": {"max_instances": 1000}}
    loaded = []
    longest = min(tokenizer.get("max_length", 128), output.get("max_seq_len", 128))
    boundaries = [length for length in (8, 24, 40, 96, 128) if length <= longest]
    for bucketing in (
        {},
        {"boundaries": boundaries},
        {"call_overhead_tokens": 1e6, "max_batch_size": 16},
    ):
        config["handler"]["bucketing"] = bucketing
        handler_class = getattr(ts_handlers, TASKS[TASK_OF[kind]].handler)
        loaded.append(load_handler(handler_class, folder, config, serialized_file=serialized_file(folder)))
    return loaded


def answers(handler: Any, rows: list[Any], seed: int) -> list[Any]:
    """Send the rows shuffled, in batches of many sizes, some of them with many instances; return answers in order."""
    dice = random.Random(seed)  # noqa: S311  # a fixed order, not a secret
    order = list(range(len(rows)))
    dice.shuffle(order)
    results: dict[int, Any] = {}
    while order:
        size = dice.choice((1, 2, 3, 5, 8, 16))
        chosen, order = order[:size], order[size:]
        middle = len(chosen) // 2  # the first half one a row, the second half all in one row
        singles, many = chosen[:middle], chosen[middle:]
        responses = predict(handler, *(rows[index] for index in singles), [rows[index] for index in many])
        assert [response.status for response in responses] == [200] * len(responses)
        results.update(zip(singles, (response.json() for response in responses), strict=False))
        results.update(zip(many, responses[-1].json(), strict=True))
    return [results[index] for index in range(len(rows))]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("kind", ["sentiment", "topics", "tiny-distilbert", "tiny-electra"])
def test_text_classification(kind: str, backend: str, model_dirs: ModelDirs, texts: list[str]) -> None:
    rows: list[Any] = [text for text in texts if kind in ("sentiment", "topics") or len(text) < 100]
    rows += [{"text": left, "text_pair": right} for left, right in zip(rows[:6:2], rows[1:6:2], strict=True)]
    expected = reference("text-classification", model_dirs.checkpoint(kind), rows)
    for seed, handler in enumerate(handlers(model_dirs, kind, {}, backend)):
        for ours, theirs in zip(answers(handler, rows, seed), expected, strict=True):
            assert {label: pytest.approx(score, abs=TOLERANCE) for label, score in ours.items()} == {
                item["label"]: item["score"] for item in theirs
            }
            assert [ours[item["label"]] for item in theirs] == sorted(ours.values(), reverse=True)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False), ("max", False)])
def test_feature_extraction(pooling: str, normalize: bool, model_dirs: ModelDirs, texts: list[str]) -> None:
    kwargs = {"pooling": pooling, "normalize": normalize}
    expected = reference("feature-extraction", model_dirs.checkpoint("minilm"), texts, **kwargs)
    for seed, handler in enumerate(handlers(model_dirs, "minilm", kwargs)):
        np.testing.assert_allclose(answers(handler, texts, seed), expected, atol=TOLERANCE)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("kind", ["entities", "tiny-roberta"])
def test_token_classification(kind: str, strategy: str, model_dirs: ModelDirs, texts: list[str]) -> None:
    texts = [text for text in texts if kind == "entities" or len(text) < 100]
    expected = reference("token-classification", model_dirs.checkpoint(kind), texts, aggregation_strategy=strategy)
    for seed, handler in enumerate(handlers(model_dirs, kind, {"aggregation_strategy": strategy})):
        for ours, theirs in zip(answers(handler, texts, seed), expected, strict=True):
            assert_same(ours, theirs)


def test_token_classification_of_texts_longer_than_the_model_takes(model_dirs: ModelDirs, texts: list[str]) -> None:
    kwargs = {"aggregation_strategy": "simple", "stride": 8}
    checkpoint = model_dirs.checkpoint("entities")
    expected = reference("token-classification", checkpoint, texts, model_max_length=32, **kwargs)
    for seed, handler in enumerate(handlers(model_dirs, "entities", kwargs, max_length=32)):
        for ours, theirs in zip(answers(handler, texts, seed), expected, strict=True):
            assert_same(ours, theirs)


QUESTIONS = ("Who went where?", "What is the model for, and who made it?", "?", "How many sentences are there in all")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"top_k": 3, "max_answer_len": 40, "max_seq_len": 48, "doc_stride": 16},
        {"handle_impossible_answer": True, "align_to_words": False, "max_seq_len": 64, "doc_stride": 20},
    ],
    ids=["defaults", "windows, three answers", "impossible answers"],
)
@pytest.mark.parametrize("kind", ["answers", "tiny-roberta-answers"])
def test_question_answering(
    kind: str, kwargs: dict[str, Any], model_dirs: ModelDirs, texts: list[str], tmp_path: Path
) -> None:
    contexts = [*texts[::3], " ".join(texts[:30]), " ".join(texts[-6:])]
    rows = [
        {"question": QUESTIONS[index % len(QUESTIONS)], "context": context} for index, context in enumerate(contexts)
    ]
    expected = old_reference("question-answering", model_dirs.checkpoint(kind), rows, tmp_path, **kwargs)
    for seed, handler in enumerate(handlers(model_dirs, kind, kwargs)):
        for ours, theirs in zip(answers(handler, rows, seed), expected, strict=True):
            assert_same([ours] if isinstance(ours, dict) else ours, theirs)


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Compare entities or answers: scores within the tolerance, everything else equal."""
    assert [{**item, "score": 0} for item in ours] == [{**item, "score": 0} for item in theirs]
    assert [item["score"] for item in ours] == pytest.approx([item["score"] for item in theirs], abs=TOLERANCE)
