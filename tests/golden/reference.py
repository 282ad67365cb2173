"""Run transformers' own pipeline: what the handlers must agree with.

python reference.py TASK MODEL_DIR INPUT.json OUTPUT.json, with transformers 4.57 or 5 on the path (question-answering:
4 only). INPUT.json is {"inputs": [...], "kwargs": {...}}, OUTPUT.json one result an input, in order:

    text-classification   text or {"text", "text_pair"} -> [{label, score}], best first
    token-classification  text -> entities; kwargs as the pipeline's (aggregation_strategy, stride, ignore_labels)
    feature-extraction    text -> vector; kwargs pooling ("mean", "cls", "max") and normalize
    question-answering    {question, context} -> answers, always a list

kwargs.model_max_length, for any task, replaces the tokenizer's. On CPU, in fp32, with one thread, one input at a time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


def classify_text(pipe: Any, example: Any, **kwargs: Any) -> Any:
    return pipe(example, **{"top_k": None, "truncation": True, **kwargs})


def classify_tokens(pipe: Any, example: Any, **kwargs: Any) -> Any:
    entities = pipe(example, **kwargs)
    return [{**entity, "score": float(entity["score"])} for entity in entities]


def extract_features(pipe: Any, example: Any, pooling: str = "mean", normalize: bool = False, **kwargs: Any) -> Any:
    hidden = pipe(example, return_tensors=True, **{"truncation": True, **kwargs})[0]
    pooled: dict[str, Callable[[], torch.Tensor]] = {
        "mean": lambda: hidden.mean(dim=0),
        "cls": lambda: hidden[0],
        "max": lambda: hidden.max(dim=0).values,
    }
    vector = pooled[pooling]()
    return (torch.nn.functional.normalize(vector, dim=0) if normalize else vector).tolist()


def answer_question(pipe: Any, example: Any, **kwargs: Any) -> Any:
    answers = pipe(question=example["question"], context=example["context"], **kwargs)
    return [answers] if isinstance(answers, dict) else answers


TASKS: dict[str, Callable[..., Any]] = {
    "text-classification": classify_text,
    "token-classification": classify_tokens,
    "feature-extraction": extract_features,
    "question-answering": answer_question,
}


def load(task: str, model_dir: str, model_max_length: int | None) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    if model_max_length is not None:
        tokenizer.model_max_length = model_max_length
    pipe = transformers.pipeline(task, model=model_dir, tokenizer=tokenizer, device="cpu")
    pipe.model.float()
    return pipe


def run(task: str, model_dir: str, inputs: list[Any], **kwargs: Any) -> list[Any]:
    """Run the pipeline on each input by itself; return its results in order."""
    pipe = load(task, model_dir, kwargs.pop("model_max_length", None))
    with torch.inference_mode():
        return [TASKS[task](pipe, example, **kwargs) for example in inputs]


def main(task: str, model_dir: str, source: str, target: str) -> None:
    if task not in TASKS:
        sys.exit(f"there is no task {task!r}; choose from {', '.join(TASKS)}")
    version = transformers.__version__
    if task == "question-answering" and int(version.split(".")[0]) > 4:
        sys.exit(f"transformers {version} has no question-answering pipeline; put a 4.x release on PYTHONPATH")
    torch.set_num_threads(1)
    request = json.loads(Path(source).read_text(encoding="utf-8"))
    results = run(task, model_dir, request["inputs"], **request.get("kwargs", {}))
    Path(target).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: reference.py TASK MODEL_DIR INPUT.json OUTPUT.json")
    main(*sys.argv[1:])
