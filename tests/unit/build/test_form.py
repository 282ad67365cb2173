"""`--form`: two ways to run one precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.build.candidates import candidates
from ts_handlers.build.methods.catalogue import METHODS, find_method
from ts_handlers.build.request import BuildRequest
from ts_handlers.errors import OperatorError

REQUEST = BuildRequest("model", "text-classification", "m", "1.0", Path("out"), "fp32", "torch")


def request_for(**changes: Any) -> BuildRequest:
    return dataclasses.replace(REQUEST, **changes)


def test_eager_is_the_default() -> None:
    assert [method.form for method in candidates(REQUEST).methods] == ["eager"]
    assert find_method("torch", "bf16", None).name == "torch bf16"


def test_compiled_is_had_by_name() -> None:
    assert candidates(request_for(form="compiled")).methods[0].name == "torch fp32 compiled"


def test_a_backend_without_it_says_so() -> None:
    with pytest.raises(OperatorError, match="--backend onnx --precision fp32 has no --form compiled; it has none"):
        candidates(request_for(backend="onnx", form="compiled"))
    with pytest.raises(OperatorError, match="--backend torch --precision int8 has no --form eager; it has compiled"):
        candidates(request_for(precision="int8", form="eager"))


def test_auto_keeps_to_the_form() -> None:
    found = candidates(request_for(precision="auto", backend="auto", form="compiled", evaluation=Path("texts.txt")))
    assert {(method.backend, method.form) for method in found.methods} == {("torch", "compiled")}


def test_one_engine_a_combination() -> None:
    keys = [(method.backend, method.precision, method.quantizer, method.form) for method in METHODS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("quantizer", "package"), [("torchao", "torchao"), ("inc", "neural_compressor")])
def test_what_int8_needs_is_an_extra(quantizer: str, package: str) -> None:
    method = find_method("torch", "int8", quantizer)
    assert (method.packages, method.form) == ((package,), "compiled")


def test_ipex_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ts_handlers.build.candidates.missing_packages", lambda method: list(method.packages))
    with pytest.raises(
        OperatorError, match=r"ipex fp32 needs intel_extension_for_pytorch; install ts_handlers\[ipex\]"
    ):
        candidates(request_for(backend="ipex"))
    with pytest.raises(
        OperatorError, match=r"torch int8 torchao compiled needs torchao; install ts_handlers\[torchao\]"
    ):
        candidates(request_for(precision="int8"))
