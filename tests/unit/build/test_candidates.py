"""Which methods there are, and which of them a request leaves open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods import catalogue as module
from ts_handlers.build.methods.catalogue import METHODS, candidates, find_method
from ts_handlers.build.request import BuildRequest
from ts_handlers.errors import OperatorError

DATA = Path("texts.txt")


def request_for(
    precision: str,
    backend: str = "onnx",
    quantizer: str | None = None,
    *,
    calibration: Path | None = None,
    evaluation: Path | None = None,
    form: str | None = None,
) -> BuildRequest:
    return BuildRequest(
        *("model", "text-classification", "m", "1.0", Path("out"), precision, backend, quantizer),
        calibration=calibration,
        evaluation=evaluation,
        form=form,
    )


def no_engine(material: Material, folder: Path) -> Engine:
    raise NotImplementedError


def test_names_are_unique() -> None:
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)


def test_what_is_named_is_the_only_one() -> None:
    found = candidates(request_for("int8"))
    assert [method.name for method in found.methods] == ["onnx int8 dynamic"]
    assert found.left_out == {}


def test_a_combination_that_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(OperatorError, match="--backend onnx has no bf16; it has fp32, fp16, int8"):
        candidates(request_for("bf16"))
    with pytest.raises(OperatorError, match="has no --quantizer nncf; it has .*dynamic"):
        candidates(request_for("int8", quantizer="nncf"))
    with pytest.raises(OperatorError, match="has no --quantizer dynamic; it has none"):
        candidates(request_for("fp32", quantizer="dynamic"))


def test_auto_needs_data() -> None:
    for request in (request_for("auto"), request_for("int8", "auto"), request_for("int8", quantizer="auto")):
        with pytest.raises(OperatorError, match="give --evaluation FILE, --calibration FILE, or both"):
            candidates(request)


def test_auto_tries_every_precision_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    found = candidates(request_for("auto", calibration=DATA))
    assert {method.backend for method in found.methods} == {"onnx"}
    assert {method.precision for method in found.methods} == {"fp32", "int8"}
    wider = candidates(request_for("auto", "auto", calibration=DATA))
    assert {"onnx", "torch"} <= {method.backend for method in wider.methods}
    only = candidates(request_for("int8", quantizer="auto", calibration=DATA))
    assert {method.precision for method in only.methods} == {"int8"}


def test_what_measures_activations_is_left_out_without_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = Method("onnx", "int8", "measuring", no_engine, needs_calibration=True)
    monkeypatch.setattr(module, "METHODS", (find_method("onnx", "fp32", None), measuring))
    found = candidates(request_for("auto", evaluation=DATA))
    assert [method.name for method in found.methods] == ["onnx fp32"]
    assert found.left_out == {"onnx int8 measuring": "measures activations; give --calibration FILE"}
    assert len(candidates(request_for("auto", calibration=DATA)).methods) == 2


def test_what_is_not_installed_is_left_out_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Method("openvino", "int8", "nncf", no_engine, packages=("openvino", "nncf"))
    monkeypatch.setattr(module, "METHODS", (absent,))
    monkeypatch.setattr(module, "missing_packages", lambda method: list(method.packages))
    with pytest.raises(OperatorError, match=r"needs openvino, nncf; install ts_handlers\[openvino,nncf\]"):
        candidates(request_for("auto", "auto", evaluation=DATA))
    other = dataclasses.replace(absent, backend="torch", quantizer="inc", packages=("neural_compressor",))
    monkeypatch.setattr(module, "find_method", lambda *_: other)
    with pytest.raises(OperatorError, match=r"torch int8 inc needs neural_compressor; install ts_handlers\[inc\]"):
        candidates(request_for("int8"))


def test_what_methods_need_has_an_extra() -> None:
    assert {package for method in METHODS for package in method.packages} <= set(module.EXTRAS)


def test_methods_that_are_only_had_by_name_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    shy = dataclasses.replace(find_method("onnx", "int8", None), is_automatic=False)
    monkeypatch.setattr(module, "METHODS", (find_method("onnx", "fp32", None), shy))
    assert len(candidates(request_for("auto", evaluation=DATA)).methods) == 1


def test_a_quantizer_that_is_named_is_tried_or_refused() -> None:
    found = candidates(request_for("auto", quantizer="static-minmax", calibration=DATA))
    assert "onnx int8 static-minmax" in {method.name for method in found.methods}
    assert "onnx int8 dynamic" not in {method.name for method in found.methods}
    for name in ("dynamc", "nncf"):
        with pytest.raises(
            OperatorError, match=f"--quantizer {name} is of no method of --backend onnx .*there are dynamic"
        ):
            candidates(request_for("auto", quantizer=name, calibration=DATA))


def test_a_quantizer_that_is_named_is_not_left_out_without_a_word() -> None:
    with pytest.raises(OperatorError, match="^onnx int8 smooth measures activations; give --calibration FILE$"):
        candidates(request_for("auto", quantizer="smooth", evaluation=DATA))


def test_eager_torch_is_the_default_and_compiled_is_had_by_name() -> None:
    assert [method.form for method in candidates(request_for("fp32", "torch")).methods] == ["eager"]
    assert find_method("torch", "bf16", None).name == "torch bf16"
    assert candidates(request_for("fp32", "torch", form="compiled")).methods[0].name == "torch fp32 compiled"


def test_a_form_that_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(OperatorError, match="--backend onnx --precision fp32 has no --form compiled; it has none"):
        candidates(request_for("fp32", form="compiled"))
    with pytest.raises(OperatorError, match="--backend torch --precision int8 has no --form eager; it has compiled"):
        candidates(request_for("int8", "torch", form="eager"))


def test_auto_keeps_to_the_form() -> None:
    found = candidates(request_for("auto", "auto", form="compiled", evaluation=DATA))
    assert {(method.backend, method.form) for method in found.methods} == {("torch", "compiled")}


@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [
        (("fp32", "ipex"), "intel_extension_for_pytorch", "ipex"),
        (("int8", "torch"), "torchao", "torchao"),
        (("int8", "torch", "inc"), "neural_compressor", "inc"),
    ],
)
def test_what_is_needed_is_an_extra(
    options: tuple[str, ...], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_packages", lambda method: list(method.packages))
    with pytest.raises(OperatorError, match=rf"needs {package}; install ts_handlers\[{extra}\]"):
        candidates(request_for(*options, calibration=DATA))
