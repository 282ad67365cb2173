"""Builds with data for the gate: real engines, of a small model."""

from __future__ import annotations

import json
import signal
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from ts_handlers.build import choose, trial
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Latency
from ts_handlers.build.methods import catalogue
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.samples import Sample, encode
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.target import NATIVE, TARGETS, target_cpu
from ts_handlers.cli import main
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

TEXTS = [
    f"{start} {middle} {end}"
    for start in ("The film", "A plot", "Nobody", "My phone")
    for middle in ("is", "was hardly", "will never be", "makes me feel")
    for end in ("good", "bad!", "a mess of loose ends and of better intentions", "ok")
]


def build(model_dirs: ModelDirs, store: Path, *options: object, kind: str = "tiny-distilbert") -> int:
    task = [] if "--task" in options else ["--task", "text-classification"]
    words = ["build", model_dirs.checkpoint(kind), "--name", "m", "--output", store, *task, *options]
    return main([str(word) for word in words])


def report_of(store: Path) -> Any:
    return json.loads((store / "m.build.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def evaluation(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with the label that the model itself gives them: in fp32 all of them are right."""
    source = load_source(str(model_dirs.checkpoint("tiny-distilbert")), "text-classification")
    session = SourceSession(source)
    lines = []
    for text in TEXTS:
        item = encode(source, Sample(text))
        logits = session.run({name: array[None] for name, array in item.arrays.items()})["logits"]
        lines.append(f"{source.labels[int(logits[0].argmax())]}\t{text}")
    file = tmp_path_factory.mktemp("data") / "evaluation.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "calibration.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    return file


def damaged(material: Material, folder: Path) -> Engine:
    """Make an engine whose weights are lost."""
    model = onnx.load(str(material.fused))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2:
            weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, str(folder / "model.onnx"))
    return Engine(folder / "model.onnx", {"backend": "onnx", "precision": "int8"})


def broken(material: Material, folder: Path) -> Engine:
    raise OperatorError("the model has no products to quantize")


DAMAGED = Method("onnx", "int8", "damaged", damaged)
BROKEN = Method("onnx", "int8", "broken", broken)
FP32 = catalogue.find_method("onnx", "fp32", None)
DYNAMIC = catalogue.find_method("onnx", "int8", "dynamic")


def offer(monkeypatch: pytest.MonkeyPatch, *methods: Method) -> None:
    monkeypatch.setattr(catalogue, "METHODS", methods)


def test_auto_measures_every_engine_and_keeps_one_that_passes(
    model_dirs: ModelDirs,
    evaluation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offer(monkeypatch, FP32, DAMAGED, BROKEN)
    assert build(model_dirs, tmp_path, "--precision", "auto", "--evaluation", evaluation) == 0
    report = report_of(tmp_path)
    assert (report["backend"], report["precision"], report["quantizer"]) == ("onnx", "fp32", None)
    assert report["handler"]["runtime"]["precision"] == "fp32"
    gate = report["gate"]
    trials = {trial["method"]: trial for trial in gate["trials"]}
    assert trials["onnx fp32"]["quality"]["accuracy"] == 100
    assert trials["onnx fp32"]["latency"]["ms_per_sample"] > 0
    assert trials["onnx int8 damaged"]["quality"]["accuracy"] < 100
    assert "points below fp32's 100.00 %" in trials["onnx int8 damaged"]["failures"][0]
    assert trials["onnx int8 broken"]["failures"] == ["the model has no products to quantize"]
    assert gate["limits"] == {"max_accuracy_drop": 0.5, "min_mean_cosine": 0.998, "min_cosine": 0.99}
    assert gate["data"]["evaluation"]["num_samples"] == len(TEXTS)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("onnx ")]
    assert [line.rsplit("  ", 1)[-1] for line in table if "onnx fp32  " in line] == ["chosen"]


def test_what_does_not_pass_is_not_built(
    model_dirs: ModelDirs,
    evaluation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offer(monkeypatch, FP32, DAMAGED)
    (tmp_path / "m.build.json").write_text("of an earlier build")
    assert build(model_dirs, tmp_path, "--precision", "int8", "--evaluation", evaluation) == 2
    said = capsys.readouterr()
    assert "no engine passes the gate: onnx int8 damaged: accuracy" in said.err
    assert "onnx fp32" in said.out  # the table shows what would have passed
    assert [file.name for file in tmp_path.iterdir()] == ["m.build.json"]
    assert (tmp_path / "m.build.json").read_text() == "of an earlier build"


def test_a_bad_calibration_fails_the_gate(
    model_dirs: ModelDirs, calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, store = tmp_path / "bad.txt", tmp_path / "store"
    bad.write_text("ok\n" * 8)
    options = ("--task", "feature-extraction", "--precision", "int8", "--quantizer", "static-minmax")
    assert build(model_dirs, store, *options, "--calibration", bad, "--evaluation", calibration, kind="minilm") == 2
    said = capsys.readouterr()
    assert "no engine passes the gate: onnx int8 static-minmax: mean cosine 0." in said.err
    assert "0.998 is needed" in said.err
    assert "Traceback" not in said.err + said.out
    assert list(store.iterdir()) == []


def test_unlabelled_texts_are_held_out_to_judge_by(model_dirs: ModelDirs, calibration: Path, tmp_path: Path) -> None:
    loose = ("--min-mean-cosine", "0.5", "--min-cosine", "0")
    assert build(model_dirs, tmp_path, "--precision", "int8", "--calibration", calibration, *loose) == 0
    report = report_of(tmp_path)
    data = report["gate"]["data"]
    assert data["calibration"]["num_samples"] + data["evaluation"]["num_samples"] == len(TEXTS)
    [mine] = [trial for trial in report["gate"]["trials"] if trial["method"] == "onnx int8 dynamic"]
    assert "accuracy" not in mine["quality"]
    assert 0 <= mine["quality"]["agreement"] <= 100
    assert mine["quality"]["num_samples"] == data["evaluation"]["num_samples"]


def test_an_engine_asked_for_by_name_is_built_though_it_is_slower(
    model_dirs: ModelDirs,
    evaluation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = {"onnx fp32": 1.0, "torch fp32": 2.0}
    monkeypatch.setattr(
        trial, "measure_latencies", lambda engines, _, **__: {name: Latency(times[name], {}) for name in engines}
    )
    assert build(model_dirs, tmp_path, "--backend", "torch", "--evaluation", evaluation) == 0
    assert "note: torch fp32 is not faster than onnx fp32 on this machine" in capsys.readouterr().out
    assert report_of(tmp_path)["backend"] == "torch"
    assert build(model_dirs, tmp_path, "--precision", "fp32", "--evaluation", evaluation, "--force") == 0
    assert "is not faster" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "built"),
    [
        ((), "fp32"),
        (("--backend", "auto"), "fp32"),
        (("--quantizer", "auto"), "fp32"),
        (("--quantizer", "dynamic"), "int8"),
        (("--target-cpu", "sse4"), "int8"),
    ],
)
def test_int8_that_gains_nothing_gives_way_to_fp32(
    model_dirs: ModelDirs,
    evaluation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    built: str,
) -> None:
    offer(monkeypatch, FP32, DYNAMIC)
    times = {"onnx fp32": 1.0, "onnx int8 dynamic": 1.0}
    monkeypatch.setattr(
        trial, "measure_latencies", lambda engines, _, **__: {name: Latency(times[name], {}) for name in engines}
    )
    loose = ("--max-accuracy-drop", "100", "--evaluation", evaluation)
    assert build(model_dirs, tmp_path, "--precision", "int8", *loose, *options) == 0
    assert report_of(tmp_path)["precision"] == built
    said = "is not faster than onnx fp32 on this machine: fp32 is built. Name --quantizer dynamic to have it"
    assert (said in capsys.readouterr().out) == (built == "fp32")


def test_an_embedding_is_judged_as_it_is_pooled(model_dirs: ModelDirs, calibration: Path, tmp_path: Path) -> None:
    options = ("--task", "feature-extraction", "--precision", "fp32", "--calibration", calibration)
    assert build(model_dirs, tmp_path, *options, kind="tiny-mpnet") == 0
    [mine] = report_of(tmp_path)["gate"]["trials"]
    assert mine["quality"]["mean_cosine"] > 0.9999
    assert "agreement" not in mine["quality"]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ("no label\n", ("--evaluation",), "sample 1 has no label; write label<TAB>text"),
        ("one\n", ("--calibration",), "has one sample; give more"),
        ("", ("--calibration",), "has no text"),
        ("a\nb\n", ("--target-cpu", "pentium", "--calibration"), "--target-cpu pentium: choose one of native"),
    ],
)
def test_data_that_cannot_be_used(
    model_dirs: ModelDirs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    file = tmp_path / "data.txt"
    file.write_text(lines)
    assert build(model_dirs, tmp_path / "store", *options, file) == 2
    assert message in capsys.readouterr().err
    assert list((tmp_path / "store").glob("*")) == []


def test_what_judges_is_not_what_calibrates(
    model_dirs: ModelDirs, calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--precision", "int8", "--calibration", calibration, "--evaluation", calibration)
    assert build(model_dirs, tmp_path / "store", *options) == 2
    assert "what is judged on must not be calibrated on; give --calibration alone" in capsys.readouterr().err


def crashing(material: Material, folder: Path) -> Engine:
    raise RuntimeError("a library of somebody else\nof many lines")


def test_a_method_that_crashes_is_not_made_and_others_are(
    model_dirs: ModelDirs, evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, FP32, Method("onnx", "int8", "crashing", crashing))
    assert build(model_dirs, tmp_path, "--precision", "auto", "--evaluation", evaluation) == 0
    trials = {item["method"]: item for item in report_of(tmp_path)["gate"]["trials"]}
    assert trials["onnx int8 crashing"]["failures"] == ["RuntimeError: a library of somebody else"]
    assert report_of(tmp_path)["gate"]["measured_on_target"] is True


def ending(material: Material, folder: Path) -> Engine:
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("not ended")


def build_that_is_ended(checkpoint: Path, evaluation: Path, store: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    words = [checkpoint, "--task", "text-classification", "--name", "m", "--output", store, "--evaluation", evaluation]
    with pytest.MonkeyPatch.context() as patch:
        offer(patch, FP32, Method("onnx", "int8", "ending", ending))
        try:
            main(["build", "--precision", "auto", *map(str, words)])
        finally:
            assert signal.getsignal(signal.SIGTERM) is before


def test_a_build_that_is_ended_leaves_nothing(model_dirs: ModelDirs, evaluation: Path, tmp_path: Path) -> None:
    checkpoint = model_dirs.checkpoint("tiny-distilbert")
    process = get_context("spawn").Process(target=build_that_is_ended, args=(checkpoint, evaluation, tmp_path))
    process.start()  # a process of its own: a signal that goes wrong is not to end the tests
    process.join(300)
    assert process.exitcode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_another_cpu_than_this_is_said(
    model_dirs: ModelDirs, evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = next(name for name in TARGETS if name != target_cpu(NATIVE).name)
    assert build(model_dirs, tmp_path, "--target-cpu", other, "--evaluation", evaluation) == 0
    report = report_of(tmp_path)
    assert (report["target_cpu"], report["gate"]["measured_on_target"]) == (other, False)
    note = f"note: quality and speed are measured on this machine, which is not {other}"
    assert note in capsys.readouterr().out.splitlines()


def test_torch_has_the_cpus_of_the_budget_and_then_as_many_as_before(
    model_dirs: ModelDirs, evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    run, before = SourceSession.run, torch.get_num_threads()

    def counted(*args: Any, **settings: Any) -> Any:
        threads.append(torch.get_num_threads())
        return run(*args, **settings)

    monkeypatch.setattr(SourceSession, "run", counted)
    monkeypatch.setattr(choose, "cpu_budget", lambda: CpuBudget(tuple(range(64)), 3.7))
    try:
        torch.set_num_threads(2)
        assert build(model_dirs, tmp_path, "--evaluation", evaluation) == 0
        assert (set(threads), torch.get_num_threads()) == ({3}, 2)
    finally:
        torch.set_num_threads(before)


def test_a_thread_builds_without_a_handler_of_signals(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr("ts_handlers.build.pipeline.build", lambda *_, **__: None)
    thread = threading.Thread(target=lambda: codes.append(build(model_dirs, tmp_path)))
    thread.start()
    thread.join()
    assert codes == [0]
