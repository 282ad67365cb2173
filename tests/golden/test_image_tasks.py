"""The handlers of images say what transformers' processors and models say of the same files, alone and in batches."""

from __future__ import annotations

import base64
import io
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

import ts_handlers
from tests.model_dirs import TASK_OF, serialized_file
from tests.pictures import encode, photograph, scene
from ts_handlers.build.sources.checkpoint import MODEL_CLASSES
from ts_handlers.config.tasks import TASKS
from ts_handlers.testing import load_handler, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

SIZES = ((64, 64), (48, 96), (120, 60), (33, 200), (300, 301))
TOLERANCE = 1e-4
PROCESSORS = {
    "tiny-vit": "ViTImageProcessorPil",
    "tiny-resnet": "ConvNextImageProcessorPil",
    "tiny-detr": "DetrImageProcessorPil",
    "tiny-yolos": "YolosImageProcessorPil",
    "tiny-segformer": "SegformerImageProcessorPil",
}


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    made = [encode(scene(height, width, seed), "PNG") for seed, (height, width) in enumerate(SIZES)]
    return [*made, photograph("chelsea.png"), photograph("rocket.jpg")]


def handler_of(model_dirs: ModelDirs, kind: str, backend: str, **sections: Any) -> Any:
    folder = model_dirs.get(kind, backend=backend)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config["handler"] |= {"warmup": {"enabled": False}, **sections}
    config["handler"]["image"]["reduces_jpeg"] = False
    handler_class = getattr(ts_handlers, TASKS[TASK_OF[kind]].handler)
    return load_handler(handler_class, folder, config, serialized_file=serialized_file(folder))


class Reference:
    """transformers' own model and processor, one image at a time, or all as one padded batch."""

    def __init__(self, checkpoint: Path, kind: str) -> None:
        self.processor = getattr(transformers, PROCESSORS[kind]).from_pretrained(checkpoint)
        self.model = getattr(transformers, MODEL_CLASSES[TASK_OF[kind]]).from_pretrained(checkpoint).eval()

    def run(self, contents: list[bytes]) -> tuple[Any, list[tuple[int, int]]]:
        images = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = self.model(**self.processor(images=images, return_tensors="pt"))
        return outputs, [(image.height, image.width) for image in images]


def answers(handler: Any, contents: list[bytes]) -> list[Any]:
    """Send the files shuffled in batches of two, some of them as one request; return answers in order."""
    order = list(range(len(contents)))
    random.Random(5).shuffle(order)  # noqa: S311  # a fixed order, not a secret
    found: dict[int, Any] = {}
    for start in range(0, len(order), 3):
        first, *many = order[start : start + 3]
        row = [{"b64": base64.b64encode(contents[index]).decode()} for index in many]
        responses = predict(handler, contents[first], *([row] if row else []))
        assert [response.status for response in responses] == [200] * len(responses)
        found[first] = responses[0].json()
        if row:
            found.update(zip(many, responses[1].json(), strict=True))
    return [found[index] for index in range(len(contents))]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("kind", ["tiny-vit", "tiny-resnet"])
def test_image_classification(kind: str, backend: str, model_dirs: ModelDirs, files: list[bytes]) -> None:
    reference = Reference(model_dirs.checkpoint(kind), kind)
    for content, ours in zip(files, answers(handler_of(model_dirs, kind, backend), files), strict=True):
        scores = torch.softmax(reference.run([content])[0].logits[0], -1)
        best = torch.topk(scores, 5)
        names = [reference.model.config.id2label[index] for index in best.indices.tolist()]
        assert list(ours) == names
        np.testing.assert_allclose(list(ours.values()), best.values, atol=TOLERANCE)


def theirs_of(result: dict[str, torch.Tensor], labels: dict[int, str]) -> list[tuple[float, str, list[float]]]:
    items = zip(result["scores"].tolist(), result["labels"].tolist(), result["boxes"].tolist(), strict=True)
    return sorted(((score, labels[index], box) for score, index, box in items), key=lambda item: -item[0])


def assert_same_detections(ours: list[dict[str, Any]], theirs: list[tuple[float, str, list[float]]]) -> None:
    assert [next(key for key in item if key != "score") for item in ours] == [label for _, label, _ in theirs]
    for item, (score, label, box) in zip(ours, theirs, strict=True):
        assert item["score"] == pytest.approx(score, abs=TOLERANCE)
        np.testing.assert_allclose(item[label], box, atol=0.1)  # pixels


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["tiny-detr", "tiny-yolos"])
def test_object_detection(kind: str, threshold: float, backend: str, model_dirs: ModelDirs, files: list[bytes]) -> None:
    reference = Reference(model_dirs.checkpoint(kind), kind)
    handler = handler_of(model_dirs, kind, backend, output={"threshold": threshold})
    for content, ours in zip(files, answers(handler, files), strict=True):
        outputs, sizes = reference.run([content])
        (result,) = reference.processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
        assert_same_detections(ours, theirs_of(result, reference.model.config.id2label))


def test_object_detection_padded_under_a_mask(model_dirs: ModelDirs, files: list[bytes]) -> None:
    reference = Reference(model_dirs.checkpoint("tiny-detr"), "tiny-detr")
    bucketing = {"call_overhead_pixels": 1e9, "max_batch_size": 16}
    handler = handler_of(model_dirs, "tiny-detr", "onnx", output={"threshold": 0.0}, bucketing=bucketing)
    outputs, sizes = reference.run(files)
    results = reference.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
    for response, result in zip(predict(handler, *files), results, strict=True):
        assert_same_detections(response.json(), theirs_of(result, reference.model.config.id2label))


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_image_segmentation(backend: str, model_dirs: ModelDirs, files: list[bytes]) -> None:
    reference = Reference(model_dirs.checkpoint("tiny-segformer"), "tiny-segformer")
    for content, ours in zip(files, answers(handler_of(model_dirs, "tiny-segformer", backend), files), strict=True):
        outputs, sizes = reference.run([content])
        (expected,) = reference.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(ours["mask"]))))
        assert mask.shape == sizes[0] == (ours["height"], ours["width"])
        assert (mask != expected.numpy()).mean() < 0.0005  # where two labels are as good as equal
        assert sum(segment["pixels"] for segment in ours["segments"]) == mask.size
        for segment in ours["segments"]:
            assert (mask == segment["index"]).sum() == segment["pixels"]
            assert segment["label"] == reference.model.config.id2label[segment["index"]]
