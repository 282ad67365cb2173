"""Engines for OpenVINO: what is taken out of the graph, what is quantized, and which shapes are chosen. Nothing is faked."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("nncf")

from tests.unit.build.materials import material
from ts_handlers.build.gate import Limits
from ts_handlers.build.held_out import HeldOut, open_on_one_thread
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.openvino import ir, mixed, nncf
from ts_handlers.build.openvino.signal_stack import SignalStack, signal_stack_kept
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.samples import Sample, encode
from ts_handlers.build.target import NATIVE, TARGETS, target_cpu
from ts_handlers.config.sections import load_config
from ts_handlers.errors import OperatorError

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs
    from ts_handlers.build.engine import Engine, Material
    from ts_handlers.runtime import Session

HERE = target_cpu(NATIVE)
"""Whatever it is: on a CPU without VNNI integers made for one that has it would be wrong."""


@pytest.fixture
def minilm(model_dirs: ModelDirs, tmp_path: Path) -> Material:
    return material(model_dirs, "minilm", tmp_path, HERE, num_samples=40)


def opened(engine: Engine) -> Session:
    return open_on_one_thread(engine.serialized_file, engine.runtime)


def feed(found: Material) -> dict[str, Any]:
    item = encode(found.source, Sample("The museum opens at ten, and closes early on Mondays."))
    return {name: array[None] for name, array in item.arrays.items()}


def test_the_table_is_taken_out_and_the_answers_stay(minilm: Material, tmp_path: Path) -> None:
    model, table = ir.open_model(minilm.exported)
    assert table is not None
    assert table.shape == (30522, 384)
    path, table_file = ir.write_ir(model, table, tmp_path)
    assert path.with_suffix(".bin").stat().st_size < 45e6 < table_file.stat().st_size  # type: ignore[union-attr]
    session = open_on_one_thread(path, {**ir.engine_runtime({"precision": "fp32"}, table_file)})
    expected = SourceSession(minilm.source).run(feed(minilm))["last_hidden_state"]
    np.testing.assert_allclose(session.run(feed(minilm))["last_hidden_state"], expected, atol=1e-4)


def signal_stack() -> tuple[object, ...]:
    stack = SignalStack.of_this_thread()
    return stack.ss_sp, stack.ss_flags, stack.ss_size


def test_the_signal_stack_is_put_back() -> None:
    memory = ctypes.create_string_buffer(1 << 16)
    found = signal_stack()
    with signal_stack_kept():
        other = SignalStack(ctypes.addressof(memory), 0, len(memory))
        ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None)
        assert signal_stack() == (ctypes.addressof(memory), 0, len(memory))
    assert signal_stack() == found


def test_a_small_table_stays(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-roberta", tmp_path)
    model, table = ir.open_model(tiny.exported)
    assert table is None
    assert ir.write_ir(model, table, tmp_path)[1] is None


def test_bf16_is_for_cpus_that_have_it(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-roberta", tmp_path, TARGETS["avx512"])
    with pytest.raises(OperatorError, match=r"the serving CPU \(avx512\) does not multiply bf16"):
        find_method("openvino", "bf16", None).make(tiny, tmp_path)


def test_int8_is_near_fp32_and_its_worst_products_can_be_kept(minilm: Material, tmp_path: Path) -> None:
    held_out = HeldOut(minilm)
    model, table = ir.open_model(minilm.exported)
    fed = nncf.calibration_feeds(minilm, held_out.measured)
    stack = signal_stack()
    quantized = nncf.quantize(model, table, fed, nncf.NncfSettings())
    assert signal_stack() == stack
    names = [name for layer in mixed.quantized_products(quantized) for name in layer.names]
    assert len(names) >= 36
    cosines = []
    for kept in ([], names):
        path, table_file = ir.write_ir(mixed.in_float(quantized, kept), table, tmp_path)
        session = open_on_one_thread(path, ir.engine_runtime(nncf.int8_runtime(minilm), table_file))
        cosines.append(held_out.quality(session).mean_cosine)
    assert min(cosines) > 0.99
    assert cosines[0] != cosines[1]
    assert mixed.quantized_products(mixed.in_float(quantized, names)) == []
    assert path.with_suffix(".bin").stat().st_size < 15e6


@pytest.mark.slow
def test_mixed_precision_holds_its_limits(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-distilbert", tmp_path, HERE, num_samples=40)
    tiny.limits = Limits(min_mean_cosine=0.999, min_cosine=0.99)
    engine = find_method("openvino", "int8", "nncf-mixed").make(tiny, tmp_path)
    done = engine.details["quantization"]
    assert done["method"] == "nncf-mixed"
    assert done["kept"]
    assert done["held_out"]["mean_cosine"] >= 0.999
    assert HeldOut(tiny).quality(opened(engine)).mean_cosine >= 0.999
    assert engine.runtime["float_precision"] == ("bf16" if HERE.has_bf16 else "fp32")


@pytest.mark.slow
def test_accuracy_is_controlled_where_there_are_labels(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-distilbert", tmp_path, HERE, num_samples=24)
    method = find_method("openvino", "int8", "nncf-accuracy")
    with pytest.raises(OperatorError, match="sample 1 has no label"):
        method.make(tiny, tmp_path)
    file = tiny.calibration.file  # type: ignore[union-attr]
    session = SourceSession(tiny.source)
    lines = []
    for text in file.read_text().splitlines():
        item = encode(tiny.source, Sample(text))
        logits = session.run({name: array[None] for name, array in item.arrays.items()})["logits"]
        lines.append(f"{tiny.source.labels[int(logits[0].argmax())]}\t{text}")
    file.write_text("\n".join(lines))
    engine = method.make(tiny, tmp_path)
    assert engine.details["quantization"]["max_drop"] == pytest.approx(0.005)
    item = encode(tiny.source, Sample("Short."))
    assert opened(engine).run({name: array[None] for name, array in item.arrays.items()})["logits"].shape == (1, 2)


def test_accuracy_is_of_labels_only(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-mpnet", tmp_path, num_samples=4)
    with pytest.raises(OperatorError, match="needs a right label for each text"):
        find_method("openvino", "int8", "nncf-accuracy").make(tiny, tmp_path)
    tiny.calibration = None
    for name in ("nncf", "nncf-mixed", "nncf-accuracy"):
        with pytest.raises(OperatorError, match="give --calibration FILE"):
            find_method("openvino", "int8", name).make(tiny, tmp_path)


def test_shapes_are_the_lengths_of_the_texts(model_dirs: ModelDirs, tmp_path: Path) -> None:
    tiny = material(model_dirs, "tiny-roberta", tmp_path, num_samples=30)
    engine = find_method("openvino", "fp32", None).make(tiny, tmp_path)
    bucketing = engine.sections["bucketing"]
    lengths = sorted(item.length for item in tiny.calibration or ())
    assert all(boundary % 8 == 0 for boundary in bucketing["boundaries"])
    assert bucketing["boundaries"] == sorted(set(bucketing["boundaries"]))
    assert lengths[-3] <= max(bucketing["boundaries"]) < lengths[-1] + 8
    assert bucketing["max_batch_size"] == bucketing["group_sizes"][-1]
    assert engine.details["shapes"] == {"chosen_by": "30 calibration texts"}
    load_config({"handler": {"runtime": engine.runtime, "bucketing": bucketing}})


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, [16, 32, 64, 128]),
        ({"tokenizer": {"max_length": 40}}, [16, 32]),
        ({"bucketing": {"boundaries": [24], "group_sizes": [1]}}, [16, 32, 64, 128]),
    ],
)
def test_shapes_without_texts(
    model_dirs: ModelDirs, tmp_path: Path, section: dict[str, Any], expected: list[int] | None
) -> None:
    tiny = material(model_dirs, "tiny-roberta", tmp_path)
    tiny.section = section
    engine = find_method("openvino", "fp32", None).make(tiny, tmp_path)
    assert engine.sections["bucketing"]["boundaries"] == expected
    assert "calibration texts" not in engine.details["shapes"]["chosen_by"]


def test_the_same_inputs_give_the_same_bytes(model_dirs: ModelDirs, tmp_path: Path) -> None:
    written = []
    for number in ("one", "two"):
        (tmp_path / number / "engine").mkdir(parents=True)
        tiny = material(model_dirs, "tiny-roberta", tmp_path / number, HERE, num_samples=12)
        tiny.section = {"bucketing": {"boundaries": [24], "group_sizes": [1]}}
        engine = find_method("openvino", "int8", "nncf").make(tiny, tmp_path / number / "engine")
        written.append([file.read_bytes() for file in (engine.serialized_file, *engine.extra_files)])
    assert written[0] == written[1]
