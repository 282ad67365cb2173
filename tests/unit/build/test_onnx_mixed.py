from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from tests.model_dirs import ModelDirs
from tests.unit.build.graphs import cosine, residual_network, run
from tests.unit.build.materials import SENTENCES, material
from ts_handlers.build.engine import Engine, Material
from ts_handlers.build.gate import Limits
from ts_handlers.build.held_out import HeldOut
from ts_handlers.build.methods import smooth
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.samples import Sample, encode
from ts_handlers.build.target import TARGETS
from ts_handlers.errors import OperatorError


@pytest.fixture(scope="module")
def roberta(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material(model_dirs, "tiny-roberta", tmp_path_factory.mktemp("roberta"), num_samples=12)


def made(made_of: Material, quantizer: str, folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)
    return find_method("onnx", "int8", quantizer).make(made_of, folder)


def operators(engine: Engine) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(engine.serialized_file)).graph.node)


def nearness(made_of: Material, engine: Engine) -> list[float]:
    """Return the cosine of each sentence's outputs with fp32's."""
    feeds = [encode(made_of.source, Sample(sentence)).arrays for sentence in SENTENCES]
    batches = [{name: array[None] for name, array in feed.items()} for feed in feeds]
    return [cosine(run(engine.serialized_file, **feed), run(made_of.fused, **feed)) for feed in batches]


def test_smooth_answers_near_fp32_and_says_what_it_did(roberta: Material, tmp_path: Path) -> None:
    engine = made(roberta, "smooth", tmp_path)
    assert min(nearness(roberta, engine)) > 0.97  # weights at random, in 7 bits
    assert engine.runtime == {"backend": "onnx", "precision": "int8", "target_cpu": "avx2"}
    done = engine.details["quantization"]
    assert (done["method"], done["reduce_range"], done["rounded_nodes"]) == ("smooth", True, 9)
    assert (done["calibration_samples"], done["held_out_samples"]) == (8, 4)
    assert done["alpha"] in smooth.ALPHAS
    assert operators(engine)["QAttention"] == 2
    assert operators(engine)["MatMul"] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_what_is_not_needed_is_not_kept(roberta: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roberta, "limits", Limits(min_mean_cosine=0.5, min_cosine=0))
    engine = made(roberta, "mixed", tmp_path / "mixed")
    done = engine.details["quantization"]
    assert (done["method"], done["kept"]) == ("mixed", [])
    other = made(roberta, "smooth", tmp_path / "smooth")
    assert engine.serialized_file.read_bytes() == other.serialized_file.read_bytes()


def test_products_are_kept_until_the_limits_hold(
    roberta: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roberta, "limits", Limits(min_mean_cosine=0, min_cosine=0))
    before = made(roberta, "mixed", tmp_path / "before").details["quantization"]["held_out"]["mean_cosine"]
    aim = 1 - (1 - before) / 3
    monkeypatch.setattr(roberta, "limits", Limits(min_mean_cosine=aim, min_cosine=0))
    engine = made(roberta, "mixed", tmp_path / "mixed")
    done = engine.details["quantization"]
    assert 0 < len(done["kept"]) < 9
    assert done["held_out"]["mean_cosine"] >= aim
    num_attention = sum(name.startswith("Attention") for name in done["kept"])
    found = operators(engine)
    assert (found["Attention"], found["QAttention"]) == (num_attention, 2 - num_attention)
    assert found["MatMulNBits"] == len(done["kept"]) - num_attention
    assert [file.name for file in (tmp_path / "mixed").iterdir()] == ["model.onnx"]


def test_limits_that_cannot_hold_are_said(roberta: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roberta, "limits", Limits(min_mean_cosine=1 - 1e-12))
    with pytest.raises(OperatorError, match="with all 9 layers kept: mean cosine"):
        made(roberta, "mixed", tmp_path)


def test_both_methods_share_what_they_measure(roberta: Material) -> None:
    prepared = smooth.prepare(roberta)
    assert smooth.prepare(roberta) is prepared
    assert {file.name for file in prepared.exact.parent.iterdir()} == {"exact.onnx", "rounded.onnx"}


def test_blocks_cost_less_than_fused_attention_in_float(roberta: Material) -> None:
    layers = {layer.names[0]: layer.cost for layer in smooth.prepare(roberta).layers()}
    attention = next(cost for name, cost in layers.items() if name.startswith("Attention"))
    output = next(cost for name, cost in layers.items() if "attention/output" in name)
    assert attention == 9 * output  # three products in one, each three times as dear


def test_8_bits_where_the_target_can_sum_them(model_dirs: ModelDirs, tmp_path: Path) -> None:
    made_of = material(model_dirs, "tiny-distilbert", tmp_path, TARGETS["amx"], num_samples=6)
    assert made(made_of, "smooth", tmp_path / "engine").details["quantization"]["reduce_range"] is False


def test_samples_that_judge_are_not_measured(roberta: Material) -> None:
    held_out = HeldOut(roberta)
    assert (len(held_out.measured), len(held_out.judged)) == (8, 4)
    assert not {id(item) for item in held_out.measured} & {id(item) for item in held_out.judged}


def test_samples_are_needed(model_dirs: ModelDirs, tmp_path: Path) -> None:
    for number, message in (
        (0, "measures activations; give --calibration FILE"),
        (1, "has too few samples; give more"),
    ):
        (tmp_path / str(number)).mkdir()
        made_of = material(model_dirs, "tiny-roberta", tmp_path / str(number), num_samples=number)
        with pytest.raises(OperatorError, match=message):
            made(made_of, "mixed", tmp_path)


def test_a_model_without_products_is_refused(roberta: Material, tmp_path: Path) -> None:
    other = Material(roberta.source, tmp_path, roberta.target, roberta.calibration, lambda _: None)
    other.__dict__["fused"] = residual_network(tmp_path / "fused.onnx")
    with pytest.raises(OperatorError, match="no matrix product has fixed weights"):
        made(other, "smooth", tmp_path)
