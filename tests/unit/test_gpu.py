"""What is different on a GPU, with fakes in its place: there is none here. tests/gpu/ is for a machine that has one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, open_session
from ts_handlers.runtime.onnx.binding import MAX_SHAPES, BoundCalls
from ts_handlers.runtime.torch.program import Program
from ts_handlers.testing import load_handler, predict

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHARE = cpu_share(CpuBudget((0, 1)), 1)


def write_graph(folder: Path, *, finds: bool = False) -> Path:
    """Write y = 2 x, and, if asked, the places where x is not 0: how many is not known before."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    if finds:
        nodes.append(helper.make_node("NonZero", ["x"], ["found"]))
        outputs.append(helper.make_tensor_value_info("found", TensorProto.INT64, [2, "num_found"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


class BindingSession(ort.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
    """A session that counts the bindings made for it."""

    num_bindings = 0

    def io_binding(self) -> Any:
        self.num_bindings += 1
        return super().io_binding()


def rows(count: int) -> np.ndarray:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize("finds", [False, True])
def test_bound_calls_answer_as_others_do(finds: bool, tmp_path: Path) -> None:
    """The binding is real, and its buffers are the CPU's."""
    calls = BoundCalls(ort.InferenceSession(str(write_graph(tmp_path, finds=finds))), "cpu", 0)
    for count in (1, 3, 1, 2, 3):
        x = rows(count)[::-1]  # not contiguous
        outputs = calls.run({"x": x})
        assert outputs[0].tolist() == (2 * x).tolist()
        assert not finds or outputs[1].shape == (2, 2 * count - 1)


def test_buffers_are_kept_for_as_many_shapes_as_there_is_room_for(tmp_path: Path) -> None:
    session = BindingSession(str(write_graph(tmp_path)))
    calls = BoundCalls(session, "cpu", 0)

    def bindings_of(*counts: int) -> int:
        """Return how many buffers calls of these many rows made."""
        before = session.num_bindings
        for count in counts:
            calls.run({"x": rows(count)})
        return session.num_bindings - before

    assert bindings_of(*range(1, MAX_SHAPES + 1), 1) == MAX_SHAPES
    assert bindings_of(MAX_SHAPES + 1, 1) == 1, "what was used last is kept"
    assert bindings_of(2) == 1, "what was not used for longest has made room"


class FakeCudaSession:
    """A session on the CPU that says it is on what it was asked for."""

    def __init__(self, path: str, options: Any, *, providers: Any, disabled_optimizers: Any) -> None:
        self._providers, self._session = [name for name, _ in providers], REAL_SESSION(path, options)
        assert not disabled_optimizers, "those are slow on the CPU only"

    def get_providers(self) -> list[str]:
        return self._providers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


REAL_SESSION = ort.InferenceSession


@pytest.mark.parametrize("providers", ["auto", (TENSORRT, CUDA, CPU)])
def test_onnx_on_a_gpu(providers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound_to: list[tuple[str, int]] = []

    def bind(session: Any, device_type: str, device_id: int) -> BoundCalls:
        bound_to.append((device_type, device_id))
        return BoundCalls(session, "cpu", 0)

    write_graph(tmp_path)
    monkeypatch.setattr(ort, "InferenceSession", FakeCudaSession)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr("ts_handlers.runtime.onnx.session.BoundCalls", bind)
    config = RuntimeConfig(providers=providers, precision="fp16")
    session = open_session(config, ModelFiles(tmp_path, "model.onnx", gpu_id=1), SHARE)
    assert session.run({"x": rows(2)})["y"].tolist() == (2 * rows(2)).tolist()
    assert bound_to == [("cuda", 1)]
    assert (session.max_parallel, session.runs_on_device) == (1, True)
    assert "fp16, bound" in session.describe()


def test_torch_on_a_gpu_copies_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies are made up: they stay on the CPU."""
    seen: list[Any] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        seen.append("pinned")
        return tensor

    def move(tensor: torch.Tensor, device: torch.device, *, dtype: object, non_blocking: bool) -> torch.Tensor:
        assert dtype is None
        seen.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", move)
    program = Program(lambda x: 2 * x, ("x",), ("y",), device=torch.device("cuda", 1))
    assert program.run({"x": rows(1)})["y"].tolist() == [[0, 2]]
    assert seen == ["pinned", ("cuda:1", True)]


def test_fp16_is_the_builds_and_is_never_tried_on_its_own(model_dirs: ModelDirs) -> None:
    for backend in ("onnx", "torch"):
        assert not find_method(backend, "fp16", None).is_automatic
    graph = onnx.load(str(model_dirs.get("tiny-distilbert", precision="fp16") / "model.onnx"))
    assert {item.data_type for item in graph.graph.initializer if len(item.dims) > 1} == {TensorProto.FLOAT16}
    assert {item.type.tensor_type.elem_type for item in graph.graph.output} == {TensorProto.FLOAT}


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_fp16_answers_as_fp32_does(backend: str, model_dirs: ModelDirs) -> None:
    from ts_handlers import TextClassificationHandler

    answers = []
    for precision in ("fp32", "fp16"):
        folder = model_dirs.get("tiny-distilbert", backend=backend, precision=precision)
        file = (folder / "serialized-file.txt").read_text(encoding="utf-8")
        answers.append(predict(load_handler(TextClassificationHandler, folder, serialized_file=file), "fine")[0].json())
    assert answers[1] == pytest.approx(answers[0], abs=5e-3)
