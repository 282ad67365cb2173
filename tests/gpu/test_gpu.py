"""Handlers and a real TorchServe on an NVIDIA GPU: answers equal the CPU's. scripts/test-gpu; has not been run yet."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
import pytest
import torch
import yaml

import ts_handlers
from tests.e2e.conftest import run_cli
from tests.e2e.test_serving import ask
from tests.model_dirs import TASK_OF
from tests.pictures import encode, scene
from ts_handlers.config.tasks import TASKS
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.testing import FakeContext, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

KINDS = ("tiny-distilbert", "tiny-vit", "tiny-resnet")
ENGINES = (("onnx", "fp32"), ("onnx", "fp16"), ("torch", "fp32"), ("torch", "bf16"), ("torch", "fp16"))
TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 5e-2}  # convolutions in fp32 may use TF32
SIZES = ((64, 64), (48, 96), (64, 64), (120, 60), (33, 200))
TENSORRT = "TensorrtExecutionProvider"


def payloads(kind: str) -> list[Any]:
    if kind == "tiny-distilbert":
        return ["fine", "a longer sentence of some more words than the first", "fine again"]
    return [encode(scene(*size, seed), "PNG") for seed, size in enumerate(SIZES)]


def load(folder: Path, kind: str, gpu_id: int | None, **runtime: Any) -> Any:
    config = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    config["handler"]["runtime"].update(runtime)
    file = (folder / "serialized-file.txt").read_text(encoding="utf-8")
    manifest = {"model": {"modelName": "model", "serializedFile": file}}
    handler = getattr(ts_handlers, TASKS[TASK_OF[kind]].handler)()
    handler.initialize(FakeContext(folder, config, manifest, gpu_id=gpu_id))
    return handler


def check(folder: Path, kind: str, precision: str, **runtime: Any) -> Any:
    """Compare the GPU's answers with the CPU's, twice: the second time buffers are there."""
    wanted = [response.json() for response in predict(load(folder, kind, None), *payloads(kind))]
    handler = load(folder, kind, 0, **runtime)
    for _ in range(2):
        for expected, response in zip(wanted, predict(handler, *payloads(kind)), strict=True):
            assert response.status == 200, response.body
            assert response.json() == pytest.approx(expected, abs=TOLERANCE[precision])
    assert handler.session.runs_on_device
    return handler


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "precision"), ENGINES)
def test_answers_are_the_cpus(backend: str, precision: str, kind: str, model_dirs: ModelDirs) -> None:
    handler = check(model_dirs.get(kind, backend=backend, precision=precision), kind, precision)
    assert ("CUDAExecutionProvider" if backend == "onnx" else "cuda:0") in handler.session.describe()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_where_it_is_listed(precision: str, model_dirs: ModelDirs) -> None:
    if TENSORRT not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no TensorRT")
    providers = [TENSORRT, "CUDAExecutionProvider", "CPUExecutionProvider"]
    handler = check(model_dirs.get("tiny-resnet", precision=precision), "tiny-resnet", precision, providers=providers)
    assert TENSORRT in handler.session.describe()


def test_memory_does_not_grow_with_calls(model_dirs: ModelDirs) -> None:
    handler = load(model_dirs.get("tiny-resnet"), "tiny-resnet", 0)
    free = []
    for _ in range(3):
        for _ in range(20):
            predict(handler, *payloads("tiny-resnet"))
        free.append(torch.cuda.mem_get_info()[0])
    assert free[1] - free[2] < 2**20


def test_through_torchserve(model_dirs: ModelDirs, tmp_path: Path) -> None:
    for backend, precision in (("onnx", "fp16"), ("torch", "fp16")):
        run_cli(
            *("build", model_dirs.checkpoint("tiny-vit"), "--task", "image-classification"),
            *("--name", f"{backend}-{precision}", "--backend", backend, "--precision", precision),
            *("--output", tmp_path),
        )
    run_cli("configure", tmp_path, "--gpus", 1, *free_port_options())
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,  # short: worker sockets are in it
        BackgroundServer(tmp_path, environ={**os.environ, "TEMP": temporary}) as server,
    ):
        content = payloads("tiny-vit")[0]
        answers = [ask(server, f"/predictions/{name}", content, "image/png") for name in ("onnx-fp16", "torch-fp16")]
    assert [status for status, _ in answers] == [200, 200], json.dumps(answers)
    assert answers[0][1] == pytest.approx(answers[1][1], abs=TOLERANCE["fp16"])
