"""Models of images in every form: what is read from them, and that each engine says what the model says."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.pictures import encode, scene
from tests.unit.build.image_forms import FORMS, load, make_onnx, make_script, request_for, tiny
from ts_handlers.build import check, inputs
from ts_handlers.build.choose import Opener
from ts_handlers.build.engine import Engine, Material
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sections import source_section
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.target import TARGETS
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.preprocessing import Preprocessing
from ts_handlers.imaging.processors.preprocessor_config import parse_preprocessing

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of the exporter used here


def build(source: ImageSource, request: BuildRequest, work: Path) -> tuple[Engine, Any]:
    """Make an engine, check it against its source, and return it with its session."""
    dataset = None
    if request.precision == "int8":
        pictures = work / "pictures"
        pictures.mkdir()
        for seed in range(4):
            (pictures / f"{seed}.png").write_bytes(encode(scene(40, 60, seed), "PNG"))
        dataset = Dataset(source, pictures)
    material = Material(source, work, TARGETS["avx2"], dataset, progress=lambda _: None)
    folder = work / "engine"
    folder.mkdir()
    method = find_method(request.backend, request.precision, request.quantizer)
    engine = method.make(material, folder)
    session, calls = Opener(request, source, source_section(request, source))(engine)
    samples = inputs.sample_inputs(source, None, {})
    check.check_build(source, session, calls, samples, request.precision, request.tolerance)
    return engine, session


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_onnx(form: str, given: Path, tmp_path: Path) -> None:
    path = FORMS[form](given)
    source = load(path, given)
    assert source.layout == ("NHWC" if form == "nhwc" else "NCHW")
    assert source.max_batch_size == (1 if form == "fixed" else None)
    assert source.labels == ("red", "green", "blue", "red (3)")
    assert source.num_parameters in range(255, 261)
    _, session = build(source, request_for(path, given), tmp_path)
    picture = torch.rand(1, 3, 16, 24)
    values = picture.permute(0, 2, 3, 1) if form == "nhwc" else picture
    outputs = session.run({"pixel_values": values.contiguous().numpy()})
    with torch.inference_mode():
        expected = tiny()(picture)
    if form == "nhwc":  # it ends in a softmax
        assert source.section()["output"]["function_to_apply"] == "none"
        expected = expected.softmax(-1)
    np.testing.assert_allclose(outputs["logits"], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("form", ["state_dict", "script", "exported"])
def test_torch_runs_them_as_they_are(form: str, given: Path, tmp_path: Path) -> None:
    path = FORMS[form](given)
    source = load(path, given)
    engine, session = build(source, request_for(path, given, backend="torch"), tmp_path)
    if form == "state_dict":
        written, given_weights = (torch.load(file, weights_only=True) for file in (engine.serialized_file, path))
        assert all(torch.equal(written[name], given_weights[name]) for name in written.keys() | given_weights.keys())
    else:
        assert engine.serialized_file.read_bytes() == path.read_bytes()
    assert (engine.model_file is None) == (form != "state_dict")
    picture = torch.rand(3, 3, 16, 24)
    with torch.inference_mode():
        expected = tiny()(picture).numpy()
    np.testing.assert_allclose(session.run({"pixel_values": picture.numpy()})["logits"], expected, atol=1e-4)


@pytest.mark.parametrize("form", ["onnx", "nhwc", "fixed", "state_dict"])
def test_static_int8(form: str, given: Path, tmp_path: Path) -> None:
    path = FORMS[form](given)
    source = load(path, given)
    request = request_for(path, given, precision="int8", quantizer="static-minmax")
    engine, _ = build(source, request, tmp_path)
    operators = Counter(node.op_type for node in onnx.load(str(engine.serialized_file)).graph.node)
    assert operators["QuantizeLinear"] >= operators["Conv"] > 0
    assert not operators["BatchNormalization"]  # it is folded


def test_onnx_is_nothing_for_torch(given: Path, tmp_path: Path) -> None:
    path = make_onnx(given)
    with pytest.raises(OperatorError, match="torch does not run ONNX files; use --backend onnx"):
        build(load(path, given), request_for(path, given, backend="torch"), tmp_path)


class Detector(torch.nn.Module):
    """Takes and returns what torchvision's scripted detectors do; finds as many objects as a picture is bright."""

    def forward(self, images: list[torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
        found: list[dict[str, torch.Tensor]] = []
        for image in images:
            count = 1 + int(image.mean() * 4)
            ends = torch.arange(count) + 1.0
            boxes = torch.stack([ends * 0, ends, ends * 2, ends * 3], 1)
            found.append({"boxes": boxes, "labels": torch.arange(count) % 3, "scores": 1.0 / (ends + image.mean())})
        return {}, found


def test_a_scripted_detector(given: Path, tmp_path: Path) -> None:
    path = given / "detector.pt"
    script: Any = torch.jit.script(Detector())
    script.save(str(path))
    (given / "preprocessor_config.json").write_text(json.dumps({"do_resize": False, "do_normalize": False}))
    source = load(path, given, "object-detection")
    assert source.is_detector
    request = request_for(path, given, "object-detection", backend="torch")
    _, session = build(source, request, tmp_path)
    pictures = np.stack([np.full((3, 8, 8), level, np.float32) for level in (0.1, 0.9)])
    outputs = session.run({"pixel_values": pictures})
    assert outputs["num_detections"].tolist() == [1, 4]
    assert outputs["boxes"].shape == (2, 4, 4)
    assert outputs["scores"][0, 1:].tolist() == [0, 0, 0]
    (tmp_path / "again").mkdir()
    with pytest.raises(OperatorError, match="takes a list of pictures and has no ONNX form here"):
        build(source, request_for(path, given, "object-detection"), tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessor": Path("gone.json")}, "there is no gone.json; it says how pictures are resized"),
        ({"model_file": Path("gone.py")}, "--model-file gone.py is no file"),
        ({"labels": Path("gone.txt")}, "gone.txt cannot be read as UTF-8 text"),
        ({"task": "text-classification"}, "--labels is for tasks of images"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, Any], message: str, given: Path) -> None:
    with pytest.raises(OperatorError, match=message):
        load(make_script(given), given, **change)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.onnx", b"x", "is no ONNX file"),
        ("broken.pt", b"x", "is no TorchScript file"),
        ("broken.pt2", b"x", "is no package of torch.export"),
        ("broken.bin", b"x", "is of no known kind"),
    ],
)
def test_broken_files(name: str, content: bytes, message: str, given: Path) -> None:
    (given / name).write_bytes(content)
    with pytest.raises(OperatorError, match=message):
        load(given / name, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "names no label"), ('{"0": "a", "2": "b"}', "without a gap"), ("7", "a list or an object is needed")],
)
def test_labels_that_are_none(text: str, message: str, given: Path) -> None:
    file = given / ("labels.json" if text else "empty.txt")
    file.write_text(text)
    with pytest.raises(OperatorError, match=message):
        load(make_script(given), given, labels=file)


def test_labels_as_torchserve_has_them(given: Path) -> None:
    file = given / "index_to_name.json"
    file.write_text(json.dumps({"0": ["n01", "tench"], "1": ["n02", "crane"], "2": "crane", "3": "cup"}))
    assert load(make_script(given), given, labels=file).labels == ("tench", "crane", "crane (2)", "cup")


def graph(shape: tuple[Any, ...], outputs: int = 1, more: tuple[Any, ...] = ()) -> onnx.ModelProto:
    """A graph that takes an array of this shape and gives it back."""
    names = [f"y{index}" for index in range(outputs)]
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in names]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *more]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    return helper.make_model(
        helper.make_graph(nodes, "g", values, results), opset_imports=[helper.make_opsetid("", 17)]
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph(("n", 16)), "one input of four axes is needed"),
        (graph(("n", 1, 16, 24)), "three channels are needed"),
        (graph(("n", 3, 16, 3)), "three channels are needed"),
        (graph((4, 3, 16, 24)), "takes 4 pictures a call"),
        (graph(("n", 3, 99, 24)), "takes pictures of 99 x 24"),
        (graph(("n", 3, 16, 24), outputs=2), "image-classification needs one number for each label"),
        (
            graph(("n", 3, 16, 24), more=(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 2)),)),
            "one input of four axes is needed",
        ),
    ],
)
def test_graphs_that_are_no_models_of_images(model: onnx.ModelProto, message: str, given: Path) -> None:
    onnx.save(model, str(given / "g.onnx"))
    with pytest.raises(OperatorError, match=message):
        load(given / "g.onnx", given)


def test_a_folders_own_outputs_are_found_by_name(model_dirs: ModelDirs, given: Path, tmp_path: Path) -> None:
    request = request_for(model_dirs.checkpoint("tiny-detr"), given, "object-detection", labels=None)
    source = inputs.load(request, tmp_path)
    material = Material(source, tmp_path, TARGETS["avx2"], progress=lambda _: None)
    folder = given / "detr"
    folder.mkdir()
    exported = material.exported.rename(folder / "detr.onnx")
    preprocessor = model_dirs.checkpoint("tiny-detr") / "preprocessor_config.json"
    again = load(exported, given, "object-detection", preprocessor=preprocessor)
    assert again.input_names == ("pixel_values", "pixel_mask")
    assert again.pads_images
    assert again.max_batch_size is None


def test_preprocessing_is_compared_with_transformers_own(
    model_dirs: ModelDirs, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"tiny-resnet": "image-classification", "tiny-detr": "object-detection"}
    requests = [request_for(model_dirs.checkpoint(kind), given, kinds[kind], labels=None) for kind in kinds]
    assert [inputs.load(request, tmp_path).notes for request in requests] == [(), ()]

    def shifted(values: Any, name: str) -> Preprocessing:
        return dataclasses.replace(parse_preprocessing(values, name), shift=(0.0, 0.0, 0.1))

    monkeypatch.setattr("ts_handlers.build.sources.processor.parse_preprocessing", shifted)
    for request in requests:
        with pytest.raises(
            OperatorError, match="makes other values, .*or let a handler of your own override transform"
        ):
            inputs.load(request, tmp_path)
