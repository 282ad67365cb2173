"""The properties of test_handlers.py, for the tasks of images."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import ts_handlers
from tests.contract.test_handlers import Make, assert_close, check_order
from tests.model_dirs import IMAGE_KINDS, TASK_OF, serialized_file
from tests.pictures import broken_images, encode, png_header, scene
from ts_handlers.build.engine import Method
from ts_handlers.build.methods.catalogue import METHODS, missing_packages
from ts_handlers.config.tasks import TASKS
from ts_handlers.machine import CpuShare
from ts_handlers.testing import Raw, load_handler, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

ENGINES = tuple(method for method in METHODS if method.takes_images and not missing_packages(method))
SIZES = ((64, 64), (48, 96), (64, 64), (120, 60), (33, 200), (96, 128), (48, 96), (300, 301))
OUTPUT: dict[str, dict[str, Any]] = {
    "object-detection": {"threshold": 0.0},  # random weights are sure of nothing
    "image-segmentation": {"mask": "rle"},
}


@pytest.fixture(scope="module")
def make(model_dirs: ModelDirs) -> Make:
    """Load the handler of a kind, with settings over the archive's own."""

    def make_handler(kind: str, engine: Method = ENGINES[0], **sections: Any) -> Any:
        folder = model_dirs.get(kind, backend=engine.backend, precision=engine.precision, quantizer=engine.quantizer)
        config = yaml.safe_load((folder / "model-config.yaml").read_text())
        config["handler"]["warmup"] = {"enabled": False}
        for name, section in {"output": OUTPUT.get(TASK_OF[kind], {}), **sections}.items():
            config["handler"][name] = {**config["handler"].get(name, {}), **section}
        handler_class = getattr(ts_handlers, TASKS[TASK_OF[kind]].handler)
        return load_handler(handler_class, folder, config, serialized_file=serialized_file(folder))

    return make_handler


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


FORM = {"content-type": "multipart/form-data; boundary=x"}


def files() -> list[bytes]:
    """Images of many sizes and formats."""
    formats = ("PNG", "JPEG", "WEBP", "BMP")
    return [encode(scene(height, width, seed), formats[seed % 4]) for seed, (height, width) in enumerate(SIZES)]


GOOD = encode(scene(64, 80, 20), "PNG")


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_answers_are_the_same_alone_shuffled_and_together(kind: str, make: Make) -> None:
    check_order(make(kind), [b64(content) for content in files()])


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name.replace(" ", "-"))
@pytest.mark.parametrize("kind", ["tiny-vit", "tiny-resnet", "tiny-detr", "tiny-segformer"])
def test_every_engine_answers_in_order(kind: str, engine: Method, make: Make) -> None:
    handler = make(kind, engine, bucketing={"max_batch_size": 1})
    check_order(handler, [b64(content) for content in files()[:4]])


@pytest.mark.parametrize(
    "bucketing",
    [{"max_batch_size": 1}, {"max_batch_size": 64}, {"max_padded_pixels": 10_000}],
    ids=["one by one", "all in one call", "few pixels"],
)
@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_bucketed_equals_unbucketed(kind: str, bucketing: dict[str, Any], make: Make) -> None:
    plain, bucketed = make(kind), make(kind, bucketing=bucketing)
    for expected, actual in zip(predict(plain, *files()), predict(bucketed, *files()), strict=True):
        assert_close(actual.json(), expected.json())


def test_images_share_a_call_under_a_mask_where_a_call_is_dear(make: Make) -> None:
    """That the answers are transformers' own is in golden/: padding shows in DETR's answers, there as here."""
    handler = make("tiny-detr", bucketing={"call_overhead_pixels": 1e9})
    shapes: list[tuple[int, ...]] = []
    run = handler.session.run

    def record(arrays: dict[str, Any], **options: Any) -> Any:
        shapes.append(arrays["pixel_values"].shape)
        assert arrays["pixel_mask"].shape == (shapes[-1][0], *shapes[-1][2:])
        return run(arrays, **options)

    handler.session.run = record
    assert [response.status for response in predict(handler, *files())] == [200] * len(SIZES)
    assert [shape[0] for shape in shapes] == [len(SIZES)]


@pytest.mark.parametrize("case", broken_images())
@pytest.mark.parametrize("kind", ["tiny-resnet", "tiny-detr", "tiny-segformer"])
def test_a_broken_image_gets_its_own_status_and_its_neighbours_are_answered(kind: str, case: str, make: Make) -> None:
    content, status, code = broken_images()[case]
    if case == "one long line" and kind == "tiny-segformer":
        status = 200  # it is resized to a size
    if case == "one long line" and kind == "tiny-detr":
        status, code = 400, "image_too_narrow"  # by its longest edge
    handler = make(kind, limits={"max_image_pixels": 3_000_000 if case == "one long line" else 50_000_000})
    responses = predict(handler, GOOD, content, GOOD)
    assert [response.status for response in responses] == [200, status, 200], responses[1].body
    assert responses[0].json() == responses[2].json() == predict(handler, GOOD)[0].json()
    if status != 200:
        error = responses[1].json()["error"]
        assert (error["code"], bool(error["message"])) == (code, True)


BAD_ROWS: dict[str, tuple[Any, int, str]] = {
    "empty": (b"", 400, "empty_request"),
    "nothing at all": (Raw({}), 400, "empty_request"),
    "a number": (7, 400, "invalid_type"),
    "a list of numbers": ([1, 2], 400, "invalid_type"),
    "an empty list": ([], 400, "empty_request"),
    "another object": ({"img": "x"}, 400, "invalid_type"),
    "an object with a strange key": ({"\ud800": "x"}, 400, "invalid_type"),
    "no base64": ({"b64": "?"}, 400, "invalid_base64"),
    "an empty image": ({"b64": ""}, 400, "empty_image"),
    "broken JSON": (Raw({"body": b"{"}, {"body": {"content-type": "application/json"}}), 400, "invalid_json"),
    "too many": ([{"b64": ""}] * 9, 413, "too_many_instances"),
    "an explanation": (Raw({"body": GOOD}, {"explain": "True"}), 501, "unsupported"),
    "pixels of no picture": ([[[1, 2], [3, 4]]], 400, "invalid_shape"),
    "pixels past 255": ([[[1, 2, 256]]], 400, "invalid_pixels"),
    "a tensor of another shape": ([[[0.5, 0.5]]], 400, "invalid_shape"),
    "a v2 tensor of text": (
        {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": ["?"]}]},
        400,
        "invalid_base64",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_a_bad_row_gets_its_own_status_and_its_neighbours_are_answered(kind: str, case: str, make: Make) -> None:
    bad, status, code = BAD_ROWS[case]
    handler = make(kind, limits={"max_instances": 8})
    responses = predict(handler, GOOD, bad, GOOD)
    assert [response.status for response in responses] == [200, status, 200]
    error = responses[1].json()["error"]
    if "v2" in case:
        assert isinstance(error, str)
        assert error
    else:
        assert error["code"] == code
        assert error["message"]
    assert {response.content_type for response in responses} == {"application/json"}
    rejected = [item for item in handler.context.metrics.seen if item.name == "ts_handlers_rejected_rows_total"]
    assert [item.dimensions for item in rejected] == [(code, "model", "Model")]


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_an_image_can_be_sent_in_many_ways(kind: str, make: Make) -> None:
    handler = make(kind)
    pixels = scene(64, 80, 20)
    expected = predict(handler, GOOD)[0].json()
    text = base64.b64encode(GOOD).decode()
    image_header = {"body": {"content-type": "image/png"}}
    for payload in (
        Raw({"body": bytearray(GOOD)}, image_header),
        Raw({"data": bytearray(GOOD)}, {"data": {"content-type": "application/octet-stream"}}),
        Raw({"photo": bytearray(GOOD)}),
        text,
        {"b64": text},
        {"image": text},
        {"data": text},
        {"image_bytes": {"b64": text}},
        {"image_bytes": {"b64": text}, "key": "1"},
        f"data:image/png;base64,{text}",
        f"DATA:IMAGE/PNG;BASE64,{text}",
        base64.urlsafe_b64encode(GOOD).decode().rstrip("="),
        text.encode(),
        Raw({"body": gzip.compress(GOOD)}, {**image_header, "Content-Encoding": "gzip"}),
        Raw({"image": bytearray(text.encode())}, {**FORM, "image": {"content-type": ""}}),
        Raw({"image": text}, {**FORM, "image": {"content-type": "text/plain"}}),
        Raw(
            {"image": GOOD, "who": b"me"}, {**FORM, "image": {"content-type": "image/png"}, "who": {"content-type": ""}}
        ),
        Raw({"model_name": b"m", "body": GOOD}, {}),
        {"inputs": [{"name": "x", "shape": [-1], "datatype": "BYTES", "data": [text]}]},
        pixels.tolist(),
        pixels.transpose(2, 0, 1).tolist(),
        {"image": pixels.tolist()},
    ):
        response = predict(handler, payload)[0]
        assert response.status == 200, response.body
        answer = response.json()
        assert_close(json.loads(answer["outputs"][0]["data"][0]) if "outputs" in answer else answer, expected)
    form = predict(handler, Raw({"one": GOOD, "two": files()[0]}))[0].json()
    assert_close(form, [expected, predict(handler, files()[0])[0].json()])


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_kserve_answers_hold_the_same_predictions(kind: str, make: Make) -> None:
    handler = make(kind)
    pictures = [scene(64, 80, seed) for seed in (20, 21)]
    contents = [encode(picture, "PNG") for picture in pictures]
    plain = [predict(handler, content)[0].json() for content in contents]
    v1 = predict(handler, {"instances": [b64(content) for content in contents]})[0].json()
    assert_close(v1["predictions"], plain)
    texts = [b64(content)["b64"] for content in contents]
    for tensor in (
        {"name": "image", "shape": [2], "datatype": "BYTES", "data": texts},
        {"name": "image", "shape": [2, 64, 80, 3], "datatype": "UINT8", "data": np.stack(pictures).ravel().tolist()},
    ):
        v2 = predict(handler, {"id": "x1", "inputs": [tensor]})[0].json()
        assert (v2["id"], v2["model_name"]) == ("x1", "model")
        assert_close([json.loads(item) for item in v2["outputs"][0]["data"]], plain)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_tensors_that_are_ready_for_the_model(kind: str, make: Make) -> None:
    handler = make(kind)
    item = handler.transform(handler.decode(GOOD))[0]
    values = item.arrays["pixel_values"]
    body = {
        "inputs": [
            {"name": "x", "shape": [1, *values.shape], "datatype": "FP32", "data": values.ravel().tolist()},
        ]
    }
    response = predict(handler, body)[0]
    assert response.status == 200, response.body
    answer = json.loads(response.json()["outputs"][0]["data"][0])
    if TASK_OF[kind] == "image-classification":
        assert_close(answer, predict(handler, GOOD)[0].json())
    elif TASK_OF[kind] == "image-segmentation":
        assert (answer["height"], answer["width"]) == values.shape[1:]
    nested = predict(handler, values.astype(float).tolist())[0]
    assert_close(nested.json(), answer)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_a_request_for_too_much_work_is_413(kind: str, make: Make) -> None:
    one = handler_pixels(make(kind))
    handler = make(kind, limits={"max_pixels": 3 * one})
    responses = predict(handler, [b64(GOOD)] * 3, [b64(GOOD)] * 4)
    assert [response.status for response in responses] == [200, 413]
    assert responses[1].json()["error"]["code"] == "too_many_pixels"


def handler_pixels(handler: Any) -> int:
    return int(handler.transform(handler.decode(GOOD))[0].num_positions)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_limits_of_an_image(kind: str, make: Make) -> None:
    handler = make(kind, limits={"max_image_bytes": len(GOOD), "max_image_pixels": 64 * 80 * 4})
    too_many_bytes = GOOD + b"\0"
    large = png_header(200, 200)
    for content, message in ((too_many_bytes, "bytes; this model takes"), (large, "200 x 200 pixels")):
        for payload in (content, b64(content)):
            response = predict(handler, payload)[0]
            assert (response.status, response.json()["error"]["code"]) == (413, "image_too_large")
            assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_only_the_guilty_row_fails_when_the_model_does(kind: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    handler = make(kind)
    session = handler.session
    poison = handler.transform(handler.decode(files()[1]))[0].arrays["pixel_values"]
    words = "secret pixels"

    class Poisoned:
        max_parallel, runs_on_device = session.max_parallel, False

        def run(self, arrays: dict[str, Any], *, num_parallel: int = 1) -> Any:
            values = arrays["pixel_values"]
            if values.shape[1:] == poison.shape and any(np.array_equal(row, poison) for row in values):
                raise RuntimeError(f"cannot run {words}")
            return session.run(arrays, num_parallel=num_parallel)

        def change_threads(self, share: CpuShare) -> None:
            raise AssertionError(share)

        def describe(self) -> str:
            return "poisoned"

    handler.session = Poisoned()
    responses = predict(handler, GOOD, files()[1], GOOD)
    assert [response.status for response in responses] == [200, 500, 200]
    assert responses[1].json()["error"]["code"] == "inference_failed"
    assert words not in caplog.text + responses[1].body.decode()


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_describe_metrics_and_no_traces(kind: str, make: Make) -> None:
    handler = make(kind)
    described, answered = predict(handler, Raw({}, {"describe": "True"}), GOOD)
    assert described.json()["task"] == TASK_OF[kind]
    assert answered.status == 200
    before = {name: id(value) for name, value in vars(handler).items()}
    predict(handler, files()[0], b"\xff")
    assert {name: id(value) for name, value in vars(handler).items()} == before
    metrics = handler.context.metrics
    assert metrics.values("ts_handlers_batch_fill_ratio")[0] == 2 / 8  # the second may be too soon to be measured
    assert 0 <= metrics.values("ts_handlers_padded_token_ratio")[0] < 1


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_warm_up_runs_one_image_and_a_full_batch(kind: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    make(kind, warmup={"enabled": True})
    (line,) = [record.getMessage() for record in caplog.records if " ready: " in record.getMessage()]
    assert "calls of at most 8 images and 4194304 pixels" in line
    assert "warmed up 1x" in line
    assert " 8x" in line
