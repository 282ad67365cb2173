"""Images through a real TorchServe: real photographs and real weights, and batches with broken images in them."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.e2e.conftest import run_cli
from tests.e2e.test_serving import ask
from tests.efficientnet import PREPROCESSOR, eager_network, write_efficientnet
from tests.model_dirs import TASK_OF
from tests.pictures import broken_images, encode, photograph, photograph_pixels, scene
from ts_handlers.imaging.decoding import picture_from_pixels
from ts_handlers.imaging.preprocessing import preprocess
from ts_handlers.imaging.processors.preprocessor_config import parse_preprocessing
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

RIGHT = {
    "chelsea.png": ("tabby, tabby cat", "tiger cat", "Egyptian cat"),
    "rocket.jpg": ("missile", "projectile, missile", "space shuttle"),
    "coffee.png": ("espresso", "cup", "coffee mug"),
}
"""Photographs, and the labels of ImageNet that are right for them: it has cats of several kinds, and no rocket."""

SERVED = {"objects": "tiny-detr", "segments": "tiny-segformer"}


MAX_RESPONSE_BYTES = 100_000


def _write_property(file: Path, key: str, value: object) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"{key}={value}" if line.startswith(f"{key}=") else line for line in lines))


@pytest.fixture(scope="module")
def server(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A real TorchServe with EfficientNet-Lite0, DETR and Segformer, whose batches wait long enough to fill."""
    store, folder = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("efficientnet")
    weights = write_efficientnet(folder)
    run_cli(
        *("build", weights, "--model-file", folder / "model.py", "--labels", folder / "labels.json"),
        *("--task", "image-classification", "--name", "things", "--output", store),
    )
    for name, kind in SERVED.items():
        run_cli(
            *("build", model_dirs.checkpoint(kind), "--task", TASK_OF[kind], "--name", name, "--output", store),
            *("--set", "output.threshold=0.3" if name == "objects" else "output.mask=png"),
        )
    run_cli("configure", store, "--batch-size", 8, "--max-batch-delay-ms", 400, *free_port_options())
    _write_property(store / "config.properties", "max_response_size", MAX_RESPONSE_BYTES)
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,  # short: worker sockets are in it
        BackgroundServer(
            store, environ={**os.environ, "TEMP": temporary, "TS_HANDLERS_SCOPE": Path(temporary).name}
        ) as running,
    ):
        yield running


@pytest.mark.parametrize("name", RIGHT)
def test_real_photographs_are_named_right(name: str, server: BackgroundServer) -> None:
    status, scores = ask(server, "/predictions/things", photograph(name), "image/jpeg")
    assert status == 200
    assert len(scores) == 5
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert next(iter(scores)) in RIGHT[name], scores


@pytest.mark.parametrize("name", RIGHT)
def test_the_top_five_are_the_eager_models(name: str, server: BackgroundServer) -> None:
    pixels = photograph_pixels(name)
    values = preprocess(picture_from_pixels(pixels), parse_preprocessing(PREPROCESSOR, name))
    with torch.inference_mode():
        best = torch.topk(torch.softmax(eager_network()(torch.from_numpy(values)[None]), -1)[0], 5)
    _, scores = ask(server, "/predictions/things", encode(pixels, "PNG"), "image/png")
    np.testing.assert_allclose(list(scores.values()), best.values, atol=1e-4)


def test_a_batch_with_broken_images_in_it(server: BackgroundServer) -> None:
    good = photograph("coffee.png")
    broken = list(broken_images().values())[:7]

    def send(body: bytes) -> tuple[int, Any]:
        return ask(server, "/predictions/things", body, "image/png")

    _, expected = send(good)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [good, *(content for content, _, _ in broken)]))
    assert answers[0][0] == 200
    assert next(iter(answers[0][1])) == next(iter(expected))
    assert [(status, answer["error"]["code"]) for status, answer in answers[1:]] == [
        (status, code) for _, status, code in broken
    ]


def multipart(*contents: bytes, name: str = "f{}") -> tuple[bytes, str]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name.format(index)}"; filename="{index}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for index, content in enumerate(contents)
    ]
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


def test_every_protocol(server: BackgroundServer) -> None:
    content = encode(scene(100, 140, 4), "PNG")
    text = base64.b64encode(content).decode()
    _, expected = ask(server, "/predictions/objects", content, "image/png")
    assert expected
    for path, body, content_type in (
        ("/predictions/objects", {"b64": text}, None),
        ("/predictions/objects", text.encode(), "text/plain"),
        ("/predictions/objects", content, "application/octet-stream"),
        ("/predictions/objects", *multipart(content)),
        ("/models/objects/invoke?trace=1", content, "image/png"),
        ("/models/objects/invoke?trace=1", *multipart(content)),
        (
            "/invocations?model_name=objects&trace=1",
            urllib.parse.urlencode({"image": text}).encode(),
            "application/x-www-form-urlencoded",
        ),
    ):
        assert ask(server, path, body, content_type) == (200, expected), content_type
    assert ask(server, "/predictions/objects", *multipart(content, content)) == (200, [expected, expected])
    assert ask(server, "/predictions/objects", *multipart(content, content, name="image")) == (
        200,
        [expected, expected],
    )
    assert ask(server, "/invocations?model_name=objects", content, "image/png") == (200, expected)
    status, v1 = ask(server, "/v1/models/objects:predict", {"instances": [{"b64": text}]})
    assert (status, v1) == (200, {"predictions": [expected]})
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    status, v2 = ask(server, "/v2/models/objects/infer", {"inputs": [tensor]})
    assert (status, json.loads(v2["outputs"][0]["data"][0])) == (200, expected)


def test_a_mask_is_of_the_size_of_the_image(server: BackgroundServer) -> None:
    content = encode(scene(90, 130, 5), "JPEG")
    _, answer = ask(server, "/predictions/segments", content, "image/jpeg")
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    assert mask.shape == (90, 130) == (answer["height"], answer["width"])
    _, runs = ask(server, "/predictions/segments", {"b64": base64.b64encode(content).decode(), "mask": "rle"})
    assert np.concatenate([np.full(length, index) for index, length in runs["mask"]]).tolist() == mask.ravel().tolist()


def test_an_answer_that_is_too_large_is_its_own_and_the_worker_lives(server: BackgroundServer) -> None:
    small = encode(scene(60, 80, 5), "JPEG")
    large = base64.b64encode(encode(scene(400, 500, 5), "JPEG")).decode()

    def send(body: Any) -> tuple[int, Any]:
        return ask(server, "/predictions/segments", body, "image/jpeg" if isinstance(body, bytes) else None)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [small, {"image": large, "mask": "list"}, *[small] * 6]))
    assert [status for status, _ in answers] == [200, 413, *[200] * 6]
    assert answers[1][1]["error"]["code"] == "response_too_large"
    assert f"sends {MAX_RESPONSE_BYTES} at most" in answers[1][1]["error"]["message"]
    status, _ = send({"image": large, "mask": "png"})
    assert status == 200


def test_errors_of_a_v2_route_are_strings(server: BackgroundServer) -> None:
    for body, content_type in ((b"{", "application/json"), (b"", "image/png"), ({"inputs": []}, None)):
        status, answer = ask(server, "/v2/models/segments/infer", body, content_type)
        assert (status, type(answer["error"])) == (400, str)
    status, answer = ask(server, "/predictions/segments", b"{", "application/json")
    assert (status, answer["error"]["code"]) == (400, "invalid_json")
