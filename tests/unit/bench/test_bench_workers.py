from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.pictures import SIZES, make_jpeg, make_pictures
from bench.resnet_handler import PictureHandler
from bench.scaling import ScalingBlock, cells, holds, scaling_json, scaling_table, verdict
from bench.workers import main

from ts_handlers.testing import load_handler, predict

NUM_LABELS = 6


def block(
    workers: int, rate: float, *, side: str = "ours", number: int = 1, errors: int = 0, p99_ms: float | None = 20.0
) -> ScalingBlock:
    return ScalingBlock("minilm", side, workers, number, rate, p99_ms, errors)


def test_a_cell_is_the_median_of_its_rounds_and_a_share_of_its_own_sides_best() -> None:
    found = cells(
        [
            block(1, 90.0, number=1),
            block(1, 110.0, number=2, errors=1),
            block(1, 100.0, number=3, p99_ms=None, errors=2),
            block(2, 80.0),
            block(2, 400.0, side="stock"),
        ]
    )
    assert [(cell.side, cell.workers, cell.requests_per_second) for cell in found] == [
        ("ours", 1, 100.0),
        ("ours", 2, 80.0),
        ("stock", 2, 400.0),
    ]
    assert [cell.of_best for cell in found] == [1.0, pytest.approx(0.8), 1.0]
    assert (found[0].num_errors, found[0].p99_ms) == (3, 20.0)


@pytest.mark.parametrize(("lowest", "errors", "expected"), [(85.0, 0, True), (84.9, 0, False), (100.0, 1, False)])
def test_ours_holds_from_85_percent_on_and_without_errors(lowest: float, errors: int, expected: bool) -> None:
    found = cells([block(1, 100.0), block(8, lowest, errors=errors), block(8, 1.0, side="stock")])
    assert holds(found, "minilm") is expected
    assert ("holds" in verdict(found)) is expected


def test_the_verdict_names_the_lowest() -> None:
    assert "(8 workers) gives 84% of its best, 0 errors: FAILS" in verdict(cells([block(1, 100.0), block(8, 84.0)]))


def test_without_ours_there_is_no_verdict() -> None:
    found = cells([block(1, 100.0, side="stock")])
    assert holds(found, "minilm") is None
    assert verdict(found) == ""


def test_a_side_that_answered_nothing_has_no_share_and_no_latency() -> None:
    (cell,) = cells([block(1, 0.0, p99_ms=None, errors=9)])
    assert (cell.of_best, cell.p99_ms) == (0.0, None)


def test_the_table_has_the_sides_beside_each_other_and_a_gap_where_nothing_was_measured() -> None:
    lines = scaling_table(
        cells([block(8, 95.0), block(1, 100.0), block(1, 30.0, side="stock", p99_ms=None)]), "minilm"
    ).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert rows[0][:2] == ["workers", "ours req/s"]
    assert rows[2] == ["1", "100.0", "100%", "20", "0", "30.0", "100%", "-", "0"]
    assert rows[3] == ["8", "95.0", "95%", "20", "0", "-", "-", "-", "-"]


def test_json_holds_blocks_cells_and_verdict() -> None:
    written = json.loads(json.dumps(scaling_json([block(1, 100.0), block(8, 50.0)])))
    assert written["holds"] == {"minilm": False}
    assert (len(written["blocks"]), written["cells"][1]["of_best"]) == (2, 0.5)


def test_stock_minilm_needs_a_checkout_of_pytorch_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--models", "minilm"])
    assert raised.value.code == 2
    assert "--pytorch-serve" in capsys.readouterr().err


def test_pictures_come_from_their_seed_in_changing_sizes(tmp_path: Path) -> None:
    files = sorted(make_pictures(tmp_path / "pictures", count=5).iterdir())
    for file, size in zip(files, [*SIZES, SIZES[0]], strict=True):
        with Image.open(file) as picture:
            assert picture.size == size
    assert files[0].read_bytes() == make_jpeg(SIZES[0], seed=7)
    assert files[0].read_bytes() != make_jpeg(SIZES[0], seed=8)
    files[0].write_bytes(b"kept")
    assert (make_pictures(tmp_path / "pictures", count=5) / "000.jpg").read_bytes() == b"kept"


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The benchmark's handler on a small network: one convolution, and a head on the mean of each channel."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_resnet(folder / "model.onnx")
    names = {str(index): f"class_{index}" for index in range(NUM_LABELS)}
    (folder / "index_to_name.json").write_text(json.dumps(names))
    return load_handler(PictureHandler, folder, {}, serialized_file="model.onnx")


def save_tiny_resnet(path: Path) -> None:
    """Write a model whose first three logits are the means of red, green and blue, the others below all of them."""
    kernel = np.eye(NUM_LABELS, 3, dtype=np.float32).reshape(NUM_LABELS, 3, 1, 1)
    bias = np.where(np.arange(NUM_LABELS) < 3, 0.0, -100.0).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixel_values", "kernel", "bias"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", NUM_LABELS])],
        [onnx.numpy_helper.from_array(kernel, "kernel"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def plain_jpeg(colour: str, size: tuple[int, int] = (500, 375)) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def test_pictures_of_a_batch_are_answered_in_order_and_a_broken_one_alone_fails(handler: Any) -> None:
    colours = ["red", "green", "blue", "red"]
    bodies: list[bytes] = [plain_jpeg(colour) for colour in colours]
    responses = predict(handler, *bodies[:2], b"\xff\xd8 no picture", *bodies[2:])
    assert [response.status for response in responses] == [200, 200, 400, 200, 200]
    best = [next(iter(response.json())) for response in responses if response.status == 200]
    assert best == ["class_0", "class_1", "class_2", "class_0"]
    assert "JPEG" in responses[2].json()["error"]["message"]
    assert len(responses[0].json()) == 5


def test_the_middle_of_a_picture_is_scaled_and_normalized_as_torchvision_has_it(handler: Any) -> None:
    example = handler.decode(plain_jpeg("#404040", (300, 900)))
    (model_input,) = handler.transform(example)
    pixels = model_input.arrays["pixel_values"]
    assert (pixels.shape, pixels.dtype, model_input.length) == ((3, 224, 224), np.float32, 3)
    expected = (np.full(3, 0x40 / 255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(pixels.mean(axis=(1, 2)), expected, atol=0.03)


def test_only_the_crop_is_seen(handler: Any) -> None:
    picture = Image.new("RGB", (512, 256), "blue")
    picture.paste("red", (144, 16, 368, 240))
    (model_input,) = handler.transform(picture)
    red, _, blue = model_input.arrays["pixel_values"][:, 3:-3, 3:-3]
    assert np.allclose(red, red[0, 0], atol=1e-5)
    assert red[0, 0] > 2.0 > blue[0, 0]


def test_rows_stay_rows(handler: Any) -> None:
    picture = Image.new("RGB", (256, 256), "red")
    picture.paste("blue", (0, 128, 256, 256))
    (model_input,) = handler.transform(picture)
    red, _, blue = model_input.arrays["pixel_values"]
    assert (red[:100] > blue[:100]).all()
    assert (red[-100:] < blue[-100:]).all()


def test_a_picture_given_as_text_is_refused(handler: Any) -> None:
    (response,) = predict(handler, "not Latin-1: \u20ac")
    assert response.status == 400
