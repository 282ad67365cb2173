from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.photographs import SIDE, make_pictures, vary
from bench.precision.measured import Aim, Measured, frontier
from bench.precision.page import BEGIN, END, machine_text, page_text, write_page
from bench.precision.plot import LEAST_LOSS, loss, spread_labels
from bench.precision.trying import Plan, guarded_opener
from bench.process import BenchError

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Latency, Quality
from ts_handlers.build.trial import Trial
from ts_handlers.cpu.features import CpuInfo
from ts_handlers.errors import OperatorError


def make(material: Material, folder: Path) -> Engine:
    raise RuntimeError("the reason")


def trial(
    name: str, ms: float, cosine: float = 1.0, *, accuracy: float | None = None, failures: Sequence[str] = ()
) -> Trial:
    backend, precision, *quantizer = name.split()
    engine = Engine(Path(__file__), {})
    quality = Quality(100, cosine, cosine - 0.01, 99.0, accuracy, accuracy and 90.0)
    latency = Latency(ms, {"1x9": ms, "1x24": 2 * ms, "1x40": 3 * ms, "8x9": 4 * ms, "8x24": 5 * ms, "8x40": 6 * ms})
    method = Method(backend, precision, quantizer[0] if quantizer else None, make)
    return Trial(method, engine, quality, latency, tuple(failures))


def failed(name: str, reason: str) -> Trial:
    backend, precision, quantizer = name.split()
    return Trial(Method(backend, precision, quantizer, make), failures=(reason,))


MEASURED = Measured(
    "embeddings",
    "Embeddings",
    "A model.",
    [
        trial("onnx fp32", 4.0),
        trial("onnx int8 dynamic", 1.6, 0.99, failures=["mean cosine"]),
        trial("onnx int8 static-minmax", 1.0, 0.9),
        trial("openvino bf16", 2.5, 0.9995),
        trial("torch fp32", 5.0, 0.9999),
        failed("onnx int8 inc", "it broke"),
    ],
    {"ipex bf16": "needs intel_extension_for_pytorch"},
)


def test_the_fastest_comes_first_and_is_compared_with_onnx_runtime_in_fp32() -> None:
    assert [item.method.name for item in MEASURED.made][:2] == ["onnx int8 static-minmax", "onnx int8 dynamic"]
    assert [MEASURED.speed(item) for item in MEASURED.made] == [4.0, 2.5, 1.6, 1.0, 0.8]
    assert MEASURED.not_made == {"ipex bf16": "needs intel_extension_for_pytorch", "onnx int8 inc": "it broke"}


def test_without_the_baseline_there_is_no_speed() -> None:
    alone = Measured("m", "M", "", [trial("torch fp32", 5.0)], {})
    assert alone.speed(alone.made[0]) is None
    assert "no engine counts" in Aim(2.0).verdict(alone)


@pytest.mark.parametrize(
    ("aim", "expected"),
    [
        (Aim(2.0, min_mean_cosine=0.998), "**not reached**, openvino bf16 has 1.60x at 0.99950"),
        (Aim(1.5, min_mean_cosine=0.998), "reached, openvino bf16 has 1.60x"),
        (Aim(3.0, quantizers=frozenset({"static-minmax"})), "reached, onnx int8 static-minmax has 4.00x"),
        (Aim(3.0, quantizers=frozenset({"dynamic"})), "**not reached**, onnx int8 dynamic has 2.50x"),
        (Aim(3.0, quantizers=frozenset({"nncf"})), "**not reached**, no engine counts"),
    ],
)
def test_an_aim_is_judged_by_the_fastest_engine_that_counts(aim: Aim, expected: str) -> None:
    assert expected in aim.verdict(MEASURED)


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    names = [item.method.name for item in frontier(MEASURED.trials)]
    assert names == ["onnx int8 static-minmax", "onnx int8 dynamic", "openvino bf16", "onnx fp32"]


def test_the_page_has_every_engine_and_why_others_are_missing() -> None:
    text = page_text([MEASURED], "scripts/precision", "a machine", {"embeddings": "plot.svg"})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0][:5] == ["engine", "precision", "method", "agreement %", "mean cosine"]
    assert rows[0][7:9] == ["1 x 24 ms", "8 x 24 ms"]
    assert rows[3][:5] == ["onnx", "int8", "dynamic", "99.00", "0.99000"]
    assert rows[3][7:] == ["3.20", "8.00", "1.60", "2.50", "fails"]
    assert "* ipex bf16: needs intel_extension_for_pytorch" in text
    assert "* onnx int8 inc: it broke" in text
    assert "](plot.svg)" in text
    assert "`scripts/precision` on a machine" in text


def test_accuracy_is_shown_where_there_is_some() -> None:
    labelled = Measured("m", "M", "", [trial("onnx fp32", 4.0, accuracy=87.5)], {}, Aim(1.0))
    text = page_text([labelled], "c", "m", {})
    assert "| accuracy % | agreement % |" in text
    assert "| 87.50 " in text
    assert "Aim: 1x onnx fp32; reached" in text


def test_pictures_have_no_length() -> None:
    pictures = Measured("m", "M", "", [trial("onnx fp32", 4.0)], {}, is_text=False)
    assert "| 1 picture ms | 8 pictures ms |" in page_text([pictures], "c", "m", {})


def test_what_people_write_around_the_figures_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(page, "first")
    page.write_text(page.read_text().replace("# What", "Mine.\n\n# What") + "\nAfter.\n")
    write_page(page, "second\n")
    text = page.read_text()
    assert text.startswith("Mine.\n\n# What precision costs")
    assert f"{BEGIN}\n\nsecond\n\n{END}" in text
    assert text.endswith("\nAfter.\n")
    assert "first" not in text
    write_page(page, "second")
    assert page.read_text() == text


def test_a_page_without_markers_is_not_overwritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand")
    with pytest.raises(BenchError, match="put them back"):
        write_page(page, "figures")
    assert page.read_text() == "by hand"


def test_the_machine_is_named_with_what_it_lacks() -> None:
    cpu = CpuInfo("Some CPU", 2, 2, ("avx2", "avx_vnni"), is_virtual=True)
    assert machine_text(cpu, 2) == "2 CPUs of a virtual Some CPU (AVX2, AVX-VNNI; no bf16)"


def test_results_are_ready_for_json() -> None:
    written = json.loads(json.dumps(MEASURED.to_json()))
    assert written["trials"][0]["speed"] == 4.0
    assert written["not_made"]["onnx int8 inc"] == "it broke"


def test_labels_of_points_that_meet_are_moved_apart_in_their_order() -> None:
    placed = spread_labels([1.0, 5.0, 1.05, 1.01], 0.5)
    assert placed == [1.0, 5.0, 2.0, 1.5]
    assert loss(trial("onnx fp32", 1.0, 1.0)) == LEAST_LOSS
    assert loss(trial("onnx fp32", 1.0, 0.9)) == pytest.approx(0.1)


METHODS = (
    Method("onnx", "fp32", None, make),
    Method("onnx", "int8", "dynamic", make),
    Method("torch", "int8", "torchao", make, packages=("no_such_package",)),
)


def test_methods_are_chosen_by_words_beside_the_baseline(tmp_path: Path) -> None:
    chosen, left_out = Plan(tmp_path, 10).choose(METHODS)
    assert [method.name for method in chosen] == ["onnx fp32", "onnx int8 dynamic"]
    assert left_out == {"torch int8 torchao": "needs no_such_package"}
    assert [method.name for method in Plan(tmp_path, 10, ("fp32",)).choose(METHODS)[0]] == ["onnx fp32"]
    assert len(Plan(tmp_path, 10, ("dynamic",)).choose(METHODS)[0]) == 2


def test_a_method_that_fails_in_its_own_way_does_not_end_the_run(tmp_path: Path) -> None:
    (method, _), _ = Plan(tmp_path, 10).choose(METHODS)
    with pytest.raises(OperatorError, match="RuntimeError: the reason"):
        method.make(None, tmp_path)  # type: ignore[arg-type]  # it fails before it looks

    def broken(_: Engine) -> None:
        raise KeyError("weights")

    with pytest.raises(OperatorError, match="KeyError: 'weights'"):
        guarded_opener(broken)(Engine(tmp_path, {}))  # type: ignore[arg-type]


def test_the_folders_of_a_model_are_empty(tmp_path: Path) -> None:
    work, engines = Plan(tmp_path, 10).folders("m")
    (engines / "old").touch()
    assert Plan(tmp_path, 10).folders("m") == (work, engines)
    assert list(engines.iterdir()) == []


def test_pictures_are_the_same_each_time() -> None:
    shades = {name: np.full((300, 400, 3), 40 * number + 40, dtype=np.uint8) for number, name in enumerate("abcd")}
    pictures, again = make_pictures(shades, 4, 6), make_pictures(shades, 4, 6)
    assert (len(pictures.calibration), len(pictures.evaluation)) == (4, 6)
    for mine, other in zip(pictures.evaluation, again.evaluation, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert {picture.shape for picture in pictures.calibration} == {(SIDE, SIDE, 3)}
    assert len({int(picture.mean() / 20) for picture in pictures.calibration}) > 1


def test_what_is_judged_on_shows_nothing_of_what_is_calibrated_on() -> None:
    photograph = np.zeros((50, 80, 3), dtype=np.uint8)
    photograph[:, :40, 0], photograph[:, 40:, 1] = 200, 200
    pictures = make_pictures({"a": photograph}, 5, 5)
    assert all(picture[..., 0].all() and not picture[..., 1].any() for picture in pictures.calibration)
    assert all(picture[..., 1].all() and not picture[..., 0].any() for picture in pictures.evaluation)


def test_a_variant_is_darker_or_brighter_within_limits() -> None:
    flat = np.full((8, 8, 3), 100, dtype=np.uint8)
    means = [int(vary(flat, np.random.default_rng(seed)).mean()) for seed in range(20)]
    assert 75 <= min(means) < 90
    assert 110 < max(means) <= 125
