"""Libraries that tell their makers about a machine: silenced before they are imported, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

RUNTIMES = {
    "the worker": "import ts_handlers.handler, onnxruntime as ort; ort.InferenceSession('model.onnx')",
    "onnx": "from ts_handlers.runtime.onnx.session import ort; ort.InferenceSession('model.onnx')",
    "openvino": "import ts_handlers.runtime.openvino",
}


@pytest.mark.parametrize("code", RUNTIMES.values(), ids=RUNTIMES)
def test_nothing_is_left_in_the_home_folder(code: str, tmp_path: Path) -> None:
    if "openvino" in code and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    home = tmp_path / "home"
    home.mkdir()
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [inputs], [outputs])
    save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "model.onnx")
    environ = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    subprocess.run(
        [sys.executable, "-c", code], env={**environ, "HOME": str(home)}, cwd=tmp_path, check=True, timeout=120
    )
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
