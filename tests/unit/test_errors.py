"""What an operator reads of a row that failed, and what of it is never written down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from ts_handlers.errors import DeviceLostError, InferenceError, RequestError, row_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)


def failed(run: Callable[[], object]) -> RequestError:
    try:
        run()
    except Exception as error:  # noqa: BLE001  # engines raise what they like
        return row_error(logger, "the model run", error)
    raise AssertionError("nothing was raised")


def onnx_session(folder: Path) -> ort.InferenceSession:
    """Return a graph of one input, (n, 2) floats."""
    name = f"narrow_{folder.name}"
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph([helper.make_node("Relu", [name], ["y"])], "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return ort.InferenceSession(folder / "m.onnx")


def test_what_an_engine_says_is_logged_once_a_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = onnx_session(tmp_path)
    (item,) = session.get_inputs()
    for width in (3, 4, 5):
        error = failed(lambda: session.run(None, {item.name: np.zeros((1, width), np.float32)}))  # noqa: B023
        assert (type(error), "invalid dimensions" in str(error.body())) == (InferenceError, False)
    assert caplog.text.count("failed with InvalidArgument") == 3
    assert caplog.text.count("invalid dimensions") == 1
    assert f"{item.name}" in caplog.text
    failed(lambda: torch.nn.Bilinear(2, 3, 4)(torch.zeros(1, 2), torch.zeros(1, 5)))
    assert "bilinear(): input2 size does not match" in caplog.text


@pytest.mark.parametrize("text", ["secret", "CUDA error: an illegal memory access, says secret"])
def test_what_others_say_can_quote_a_request(text: str, caplog: pytest.LogCaptureFixture) -> None:
    def hook() -> None:
        torch.nn.Identity()(torch.zeros(1))
        raise ValueError(text)

    assert type(failed(hook)) is InferenceError
    assert "failed with ValueError" in caplog.text
    assert "secret" not in caplog.text


ILLEGAL = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Gather node. CUDA failure 700: an illegal "
    "memory access was encountered ; GPU=0 ; hostname=x ; expr=cudaStreamSynchronize(stream)"
)
FAIL = type(
    "Fail", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state", "__doc__": "No GPU is here."}
)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (FAIL(ILLEGAL), True),
        (
            FAIL(ILLEGAL.replace("700: an illegal memory access was encountered", "719: unspecified launch failure")),
            True,
        ),
        (FAIL("CUDA error cudaErrorLaunchFailure:unspecified launch failure"), True),
        (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (FAIL(ILLEGAL.replace("700: an illegal memory access was encountered", "2: out of memory")), False),
        (FAIL("CUDA failure 1: invalid argument ; GPU=0"), False),
        (FAIL("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("a client sent 'CUDA error: device-side assert triggered'"), False),
        (ValueError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_cuda_errors_after_which_a_process_computes_nothing(error: Exception, is_lost: bool) -> None:
    """Made up: there is no GPU here."""
    found = row_error(logger, "the model run", error)
    assert isinstance(found, DeviceLostError) is is_lost
    assert found.status == 500
