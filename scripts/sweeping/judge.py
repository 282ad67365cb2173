"""What transformers itself answers, and how far an archive is from it. Nothing of the build is used here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from PIL import Image

from sweeping.architectures import LENGTH, Architecture
from tests.text_models import TEXTS
from ts_handlers.nlp.spans import best_answers, window_from_encoding

ODD = ("naïve café, Straße", "東京は今日 暑い", "😀 emoji!", "don't  'quote'", "ok")
SHAPES = ((60, 80), (80, 60), (224, 224), (150, 300), (400, 301))

APART = math.inf


def judge(architecture: Architecture, folder: Path, unpacked: Path, handler: Any) -> float:
    """Return the largest difference of an answer; infinite where one is of another form or no answer."""
    from ts_handlers.testing import predict

    asked, want = _pictures(architecture, folder) if _is_image(architecture) else _texts(architecture, folder, unpacked)
    together = predict(handler, *asked)
    alone = [predict(handler, payload)[0] for payload in asked[:4]]
    far = 0.0
    for answer, right in zip([*together, *alone], [*want, *want[:4]], strict=True):
        if answer.status != 200:
            return APART
        far = max(far, _distance(architecture.task, answer.json(), right))
    return far


def _is_image(architecture: Architecture) -> bool:
    return architecture.task in ("image-classification", "object-detection", "image-segmentation")


def _texts(architecture: Architecture, folder: Path, unpacked: Path) -> tuple[list[Any], list[Any]]:
    """Return requests of many lengths, and what the model answers to each by itself, loaded anew for each."""
    settings = yaml.safe_load((unpacked / "model-config.yaml").read_text(encoding="utf-8"))["handler"]["tokenizer"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_input_names = settings["input_names"]  # 4.57's for classes whose types 5 dropped
    limit = min(settings["max_length"], LENGTH)
    instances: list[Any] = [*TEXTS, *ODD, " ".join(TEXTS * 9)]
    if architecture.task == "text-classification":
        instances += [{"text": TEXTS[0], "text_pair": ODD[0]}, {"text": "a", "text_pair": "boat"}]
    if architecture.task == "question-answering":
        instances = [{"question": "who ran past?", "context": text} for text in TEXTS]
    asked, want = [], []
    for instance in instances:
        texts = list(instance.values()) if isinstance(instance, Mapping) else [instance]
        length = len(tokenizer(*texts)["input_ids"])
        if length > limit and isinstance(instance, str):
            texts = [instance[: len(instance) * limit // length - 20]]
            instance = texts[0]
        encoded = tokenizer(*texts, return_tensors="pt")
        if encoded["input_ids"].shape[1] > limit:
            continue
        model = getattr(transformers, architecture.model_class).from_pretrained(folder, dtype=torch.float32).eval()
        with torch.inference_mode():
            made = model(**encoded, return_dict=True)
        asked.append(instance)
        want.append(_of_texts(architecture.task, made, encoded, instance, tokenizer.cls_token_id))
    return asked, want


def _of_texts(task: str, made: Any, encoded: Any, instance: Any, cls_token_id: int | None) -> Any:
    if task == "text-classification":
        return dict(zip("abc", made.logits[0].softmax(-1).tolist(), strict=True))
    if task == "feature-extraction":
        return made.last_hidden_state[0].mean(0).tolist()
    if task == "token-classification":
        special = encoded.encodings[0].special_tokens_mask
        rows = made.logits[0].softmax(-1).tolist()
        return [(chr(97 + row.index(max(row))), max(row)) for row, skip in zip(rows, special, strict=True) if not skip]
    return _best_span(made, encoded, instance["context"], cls_token_id)


def _best_span(made: Any, encoded: Any, context: str, cls_token_id: int | None) -> tuple[str, float]:
    """Return the best span of the context. The choice among spans is our own; tests/golden holds it to transformers 4.57."""
    logits = made.start_logits[0].numpy(), made.end_logits[0].numpy()
    [best] = best_answers([window_from_encoding(encoded.encodings[0], *logits, cls_token_id)], context)
    return best["answer"], best["score"]


def _pictures(architecture: Architecture, folder: Path) -> tuple[list[Any], list[Any]]:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = getattr(transformers, architecture.model_class).from_pretrained(folder, dtype=torch.float32).eval()
    generator = np.random.default_rng(0)
    asked, want = [], []
    for height, width in SHAPES:
        noise = Image.fromarray(generator.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        picture = noise.resize((width, height), Image.Resampling.BICUBIC)
        target = io.BytesIO()
        picture.save(target, "PNG")
        payload: dict[str, Any] = {"image": base64.b64encode(target.getvalue()).decode()}
        with torch.inference_mode():
            made = model(**_fed(processor(images=picture, return_tensors="pt"), model), return_dict=True)
        if architecture.task == "image-classification":
            answer: Any = dict(zip("abc", made.logits[0].softmax(-1).tolist(), strict=True))
        elif architecture.task == "object-detection":
            answer = processor.post_process_object_detection(made, threshold=0.5, target_sizes=[(height, width)])[0]
        else:
            payload["mask"] = "list"
            answer = processor.post_process_semantic_segmentation(made, target_sizes=[(height, width)])[0].numpy()
        asked.append(payload)
        want.append(answer)
    return asked, want


def _fed(arrays: Any, model: Any) -> dict[str, Any]:
    import inspect

    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in arrays.items() if name in taken and isinstance(value, torch.Tensor)}


def _distance(task: str, got: Any, want: Any) -> float:
    if task in ("text-classification", "image-classification"):
        return max(abs(got[label] - want[label]) for label in want) if set(got) == set(want) else APART
    if task == "feature-extraction":
        return float(np.linalg.norm(np.subtract(got, want)) / max(np.linalg.norm(want), 1e-9))
    if task == "token-classification":
        if [item["entity"] for item in got] != [label for label, _ in want]:
            return APART
        return float(max(abs(item["score"] - score) for item, (_, score) in zip(got, want, strict=True)))
    if task == "question-answering":
        return float(abs(got["score"] - want[1])) if got["answer"] == want[0] else APART
    if task == "image-segmentation":
        return float(np.mean(np.asarray(got["mask"]) != want))
    return _of_objects(got, want)


def _of_objects(got: Sequence[Mapping[str, Any]], want: Mapping[str, Any]) -> float:
    if len(got) != len(want["scores"]):
        return APART
    theirs = sorted(want["scores"].tolist(), reverse=True)
    return max((abs(item["score"] - score) for item, score in zip(got, theirs, strict=True)), default=0.0)
