"""Handlers of images on archives that are put together by hand; those that a build makes are in contract/ and golden/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.pictures import encode, scene
from ts_handlers import ImageClassificationHandler, ImageSegmentationHandler, ObjectDetectionHandler
from ts_handlers.errors import ConfigError
from ts_handlers.machine import limit_threads
from ts_handlers.testing import load_handler, predict

PLAIN = {"do_resize": False, "do_normalize": False, "do_rescale": False}
GREY = np.full((4, 6, 3), 100, np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An unpacked archive without its model."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PLAIN))
    (tmp_path / "index_to_name.json").write_text(json.dumps({"0": "cat", "1": ["n02", "dog"], "2": "cup"}))
    return tmp_path


def write_graph(
    folder: Path, node: Any, inputs: dict[str, Any], outputs: dict[str, Any], kind: int = TensorProto.FLOAT
) -> None:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    nodes = node if isinstance(node, list) else [node]
    graph = helper.make_graph(nodes, "g", values, results)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(folder / "model.onnx"))


def load(handler_class: Any, folder: Path, file: str = "model.onnx", **sections: Any) -> Any:
    config = {"handler": {"warmup": {"enabled": False}, **sections}}
    return load_handler(handler_class, folder, config, serialized_file=file)


def mean_of_channels(folder: Path, layout: str) -> None:
    shape, axes = (["n", 3, "h", "w"], [2, 3]) if layout == "NCHW" else (["n", "h", "w", 3], [1, 2])
    node = helper.make_node("ReduceMean", ["pixel_values"], ["logits"], axes=axes, keepdims=0)
    write_graph(folder, node, {"pixel_values": shape}, {"logits": ["n", 3]})


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layouts(layout: str, archive: Path) -> None:
    mean_of_channels(archive, layout)
    handler = load(ImageClassificationHandler, archive, image={"layout": layout}, output={"problem_type": "regression"})
    pixels = GREY + np.array([0, 5, 2], np.uint8)
    answers = predict(handler, encode(pixels, "PNG"), encode(GREY, "PNG"))
    assert answers[0].json() == pytest.approx({"dog": 105, "cup": 102, "cat": 100})
    tensor = np.full((3, 2, 2), 7.5)
    assert set(predict(handler, tensor.tolist())[0].json().values()) == {7.5}


def test_pictures_as_bytes(archive: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["pixel_values"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    write_graph(archive, nodes, {"pixel_values": ["n", 3, "h", "w"]}, {"logits": ["n", 3]}, TensorProto.UINT8)
    handler = load(ImageClassificationHandler, archive, output={"problem_type": "regression"})
    assert set(predict(handler, encode(GREY, "PNG"))[0].json().values()) == {100}


def test_images_decoded_while_the_model_computes_are_answered_as_others_are(archive: Path) -> None:
    mean_of_channels(archive, "NCHW")
    rows: list[Any] = [encode(scene(16, 24, seed), "PNG") for seed in range(9)]
    rows[4] = rows[4][:-40]
    answers = []
    for threads in (1, 2):
        handler = load(ImageClassificationHandler, archive, cpu={"threads": threads})
        assert handler.session.max_parallel == threads
        answers.append([(response.status, response.json()) for response in predict(handler, *rows)])
        metrics = handler.context.metrics
        for stage in ("decode", "transform", "run", "format"):
            assert len(metrics.values(f"ts_handlers_{stage}_seconds")) == 1, stage
        assert metrics.values("ts_handlers_padded_token_ratio") == [0]
        assert bool(handler._pipeline._threads._pool) is (threads == 2)
    limit_threads(1)
    assert [status for status, _ in answers[1]] == [200] * 4 + [400] + [200] * 4
    assert answers[0] == answers[1]


class Detector(torch.nn.Module):
    """Finds, as torchvision's do, in lists; two objects in a bright picture, none in a dark one."""

    def forward(self, images: list[torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
        found: list[dict[str, torch.Tensor]] = []
        for image in images:
            count = 2 if float(image.mean()) > 50 else 0
            boxes = torch.tensor([[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 6.0, 4.0]])[:count]
            found.append(
                {"boxes": boxes, "labels": torch.tensor([2, 1])[:count], "scores": torch.tensor([0.6, 0.9])[:count]}
            )
        return {}, found


def test_a_torchscript_detector_answers_as_torchserves_own_handler(archive: Path) -> None:
    script: Any = torch.jit.script(Detector())
    script.save(str(archive / "detector.pt"))
    handler = load(ObjectDetectionHandler, archive, "detector.pt", runtime={"backend": "torch"})
    assert "TorchScript" in handler.session.describe()
    dark = np.zeros((4, 6, 3), np.uint8)
    answers = predict(handler, encode(GREY, "PNG"), encode(dark, "PNG"), encode(scene(8, 8), "PNG"))
    assert answers[0].json() == [
        {"dog": [1.0, 1.0, 6.0, 4.0], "score": pytest.approx(0.9)},
        {"cup": [0.0, 1.0, 2.0, 3.0], "score": pytest.approx(0.6)},
    ]
    assert answers[1].json() == []
    assert answers[2].status == 200


def test_boxes_of_a_resized_picture_are_in_its_own_pixels(archive: Path) -> None:
    (archive / "preprocessor_config.json").write_text(
        json.dumps({**PLAIN, "do_resize": True, "size": {"height": 8, "width": 6}})
    )
    script: Any = torch.jit.script(Detector())
    script.save(str(archive / "detector.pt"))
    handler = load(ObjectDetectionHandler, archive, "detector.pt", runtime={"backend": "torch"})
    large = np.full((80, 120, 3), 100, np.uint8)
    assert predict(handler, encode(large, "PNG"))[0].json()[0]["dog"] == [20.0, 10.0, 120.0, 40.0]


def test_what_a_processor_pads_to_a_size_is_masked(archive: Path) -> None:
    settings = {**PLAIN, "do_pad": True, "pad_size": {"height": 8, "width": 9}}
    (archive / "preprocessor_config.json").write_text(json.dumps(settings))
    mean_of_channels(archive, "NCHW")
    handler = load(ImageClassificationHandler, archive, image={"pixel_mask": True})
    [item] = handler.transform(handler.decode(encode(GREY, "PNG")))
    assert item.arrays["pixel_values"].shape == (3, 8, 9)
    assert item.arrays["pixel_mask"].sum() == item.arrays["pixel_mask"][:4, :6].sum() == 24
    answer = predict(handler, encode(scene(10, 9), "PNG"), encode(scene(1, 1), "PNG"))[0]
    assert (answer.status, answer.json()["error"]["code"]) == (400, "image_too_large")


def test_boxes_in_a_padded_picture_are_refused(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    (archive / "preprocessor_config.json").write_text(json.dumps({**PLAIN, "do_pad": True, "pad_size": 16}))
    script: Any = torch.jit.script(Detector())
    script.save(str(archive / "detector.pt"))
    handler = load(ObjectDetectionHandler, archive, "detector.pt", runtime={"backend": "torch"})
    assert predict(handler, encode(GREY, "PNG"))[0].status == 500
    assert "are not brought back from there; give the model preprocessing without pad_size" in caplog.text


def test_outputs_that_are_no_detections(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    mean_of_channels(archive, "NCHW")
    response = predict(load(ObjectDetectionHandler, archive), encode(GREY, "PNG"))[0]
    assert (response.status, response.json()["error"]["code"]) == (500, "inference_failed")
    assert "the model returned logits; logits and pred_boxes, or boxes, labels and scores are needed" in caplog.text


def test_a_mask_by_request(archive: Path) -> None:
    node = helper.make_node("Identity", ["pixel_values"], ["logits"])
    shape = ["n", 3, "h", "w"]
    write_graph(archive, node, {"pixel_values": shape}, {"logits": shape})
    handler = load(ImageSegmentationHandler, archive, output={"mask": "list"})
    pixels = GREY.copy()
    pixels[0, :4, 1] = 200
    answer = predict(handler, {"image": pixels.tolist()})[0].json()
    assert answer["mask"] == [[1, 1, 1, 1, 0, 0], *[[0] * 6] * 3]
    assert [segment["label"] for segment in answer["segments"]] == ["cat", "dog"]
    runs = predict(handler, {"image": pixels.tolist(), "mask": "rle"})[0].json()["mask"]
    assert runs == [[1, 4], [0, 20]]
    for wrong in ("jpeg", None, 7, ["png"]):
        response = predict(handler, {"image": pixels.tolist(), "mask": wrong})[0]
        assert (response.status, response.json()["error"]["code"]) == (400, "invalid_type")


@pytest.mark.parametrize(
    ("labels", "handler_class", "image", "message"),
    [
        (
            {"0": "cat", "1": "score"},
            ObjectDetectionHandler,
            {},
            'has a label "score", which answers use for the score',
        ),
        ({"0": "cat", "1": "cat"}, ImageClassificationHandler, {}, "gives two labels one name"),
        ({"0": "cat", "2": "cup"}, ImageSegmentationHandler, {}, "without a gap"),
        ({"0": "cat"}, ImageSegmentationHandler, {"layout": "NHWC", "pixel_mask": True}, "needs layout NCHW"),
        ({"0": "cat"}, ImageSegmentationHandler, {"file": "gone.json"}, r"gone\.json is not in the archive"),
        ({"0": "cat"}, ImageSegmentationHandler, {"layout": "CHWN"}, "choose one of: NCHW, NHWC"),
    ],
)
def test_an_archive_that_cannot_be_served(
    labels: dict[str, str], handler_class: Any, image: dict[str, Any], message: str, archive: Path
) -> None:
    (archive / "index_to_name.json").write_text(json.dumps(labels))
    mean_of_channels(archive, "NCHW")
    with pytest.raises(ConfigError, match=message):
        load(handler_class, archive, image=image)


def test_detections_may_share_a_name(archive: Path) -> None:
    (archive / "index_to_name.json").write_text(json.dumps({"0": "N/A", "1": "N/A"}))
    mean_of_channels(archive, "NCHW")
    assert load(ObjectDetectionHandler, archive).initialized
