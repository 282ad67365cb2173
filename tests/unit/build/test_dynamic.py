from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import product, run, run_with
from tests.unit.build.materials import material
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.quantize.int8 import quantize_dynamic
from ts_handlers.machine.features import TARGETS, read_cpuinfo


@pytest.mark.parametrize("target", ["avx2", "amx"])
def test_the_target_decides_the_weights_and_is_recorded(target: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    engine = find_method("onnx", "int8", "dynamic").make(
        material(model_dirs, "tiny-distilbert", tmp_path, TARGETS[target]), tmp_path
    )
    assert engine.runtime == {"backend": "onnx", "precision": "int8", "target_cpu": target}
    assert engine.details["quantization"]["reduce_range"] == (target == "avx2")


def test_7_bit_weights_give_right_sums_on_any_cpu(tmp_path: Path) -> None:
    path, x = product(tmp_path / "fp32.onnx", np.ones((64, 8))), np.ones((2, 64), dtype=np.float32)
    quantize_dynamic(onnx.load(str(path)), tmp_path / "int8.onnx", reduce_range=True)
    assert run(tmp_path / "int8.onnx", x=x) == pytest.approx(64, rel=0.01)


@pytest.mark.skipif(
    read_cpuinfo().target.has_vnni, reason="this CPU sums INT8 products in 32 bits, so nothing saturates"
)
def test_8_bit_weights_saturate_without_vnni(tmp_path: Path) -> None:
    """255 * 127 + 255 * 127 does not fit in 16 bits: each pair of products is cut to 32,767."""
    path, x = product(tmp_path / "fp32.onnx", np.ones((64, 8))), np.ones((2, 64), dtype=np.float32)
    quantize_dynamic(onnx.load(str(path)), tmp_path / "int8.onnx", reduce_range=False)
    assert run(tmp_path / "int8.onnx", x=x) == pytest.approx(64 * 32767 / (2 * 255 * 127), rel=0.01)


@pytest.mark.skipif(
    read_cpuinfo().target.has_vnni, reason="this CPU sums INT8 products in 32 bits, so nothing saturates"
)
def test_onnx_runtime_can_be_told_to_take_products_that_do_not_saturate(tmp_path: Path) -> None:
    path, x = product(tmp_path / "fp32.onnx", np.ones((64, 8))), np.ones((2, 64), dtype=np.float32)
    quantize_dynamic(onnx.load(str(path)), tmp_path / "int8.onnx", reduce_range=False)
    entries = {"session.x64quantprecision": "1"}
    assert run_with(entries, tmp_path / "int8.onnx", x=x) == pytest.approx(64, rel=0.01)


def test_the_quantizer_s_advice_is_not_for_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = product(tmp_path / "fp32.onnx", np.ones((64, 8)))
    with caplog.at_level(logging.WARNING):
        quantize_dynamic(onnx.load(str(path)), tmp_path / "int8.onnx", reduce_range=True)
    assert caplog.messages == []
