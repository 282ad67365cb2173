"""Trials of engines that fail, each in a way of its own; engines that are real are in test_choose.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Answers, Limits, Quality, Reference
from ts_handlers.build.trial import Trial, Trials, fastest
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuShare
from ts_handlers.shapes import Array

CALLS = ModelCalls(BucketingConfig(), {}, ())
INPUTS = [ModelInput({"input_ids": np.array([index, 9])}, 2) for index in range(4)]
BYTES = b"weights"

Logits = Callable[[int], list[float]]


class FakeSession:
    """Returns what a function makes of the first id of each sequence, until it has been run so many times."""

    max_parallel = 1
    runs_on_device = False

    def __init__(self, logits: Logits, runs_left: float = float("inf")) -> None:
        self._logits, self._runs_left = logits, runs_left

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        del num_parallel
        self._runs_left -= 1
        if self._runs_left < 0:
            raise ValueError("worn out")
        return {"logits": np.array([self._logits(int(row[0])) for row in arrays["input_ids"]], dtype=np.float32)}

    def change_threads(self, share: CpuShare) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        return "fake"


def right(index: int) -> list[float]:
    return [4.0, -4.0] if index % 2 else [-4.0, 4.0]


def wrong(index: int) -> list[float]:
    return right(index + 1)


def write(_: Material, folder: Path) -> Engine:
    (folder / "model").write_bytes(BYTES)
    return Engine(folder / "model", {})


def method(name: str, make: Callable[[Material, Path], Engine] = write, **settings: Any) -> Method:
    backend, precision, *quantizer = name.split()
    return Method(backend, precision, quantizer[0] if quantizer else None, make, **settings)


FP32 = method("onnx fp32")


def run(
    work: Path,
    methods: list[Method],
    sessions: Mapping[str, Callable[[], FakeSession]] | None = None,
    *,
    keeps_failed: bool = False,
    labels: list[int] | None = None,
) -> dict[str, Trial]:
    """Try methods; each session is of the engine whose folder has the name, and answers right by default."""
    said: list[str] = []
    material = cast("Material", SimpleNamespace(progress=said.append))
    reference = Reference(Answers("text-classification", {}, 2), INPUTS, FakeSession(right), CALLS, labels)

    def open_engine(engine: Engine) -> tuple[FakeSession, ModelCalls]:
        return (sessions or {}).get(engine.serialized_file.parent.name, lambda: FakeSession(right))(), CALLS

    trials = Trials(material, reference, Limits(), open_engine, work, keeps_failed=keeps_failed).run(methods)
    assert {trial.method.name for trial in trials} == {item.name for item in methods}
    return {trial.method.name: trial for trial in trials}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("libfast.so is not there\n  (in a long search)"), "ImportError: libfast.so is not there"),
        (RuntimeError("no kernel"), "RuntimeError: no kernel"),
        (MemoryError(), "MemoryError"),
        (OperatorError("no products; take fp32"), "no products; take fp32"),
    ],
)
def test_whatever_a_method_fails_with_is_its_own_failure(error: Exception, reason: str, tmp_path: Path) -> None:
    def fail(_: Material, folder: Path) -> Engine:
        (folder / "half").write_bytes(BYTES)
        raise error

    found = run(tmp_path, [FP32, method("onnx int8 dynamic", fail)])
    assert found["onnx int8 dynamic"].failures == (reason,)
    assert found["onnx fp32"].latency is not None
    assert [folder.name for folder in tmp_path.iterdir()] == ["onnx-fp32"]
    with pytest.raises(OperatorError, match="no engine passes the gate: onnx int8 dynamic: "):
        fastest([found["onnx int8 dynamic"]])


def test_an_engine_that_does_not_open_is_its_own_failure(tmp_path: Path) -> None:
    def fail() -> FakeSession:
        raise RuntimeError("this CPU lacks an instruction")

    found = run(tmp_path, [FP32, method("torch fp32")], {"torch-fp32": fail})
    assert found["torch fp32"].failures == ("RuntimeError: this CPU lacks an instruction",)
    assert found["onnx fp32"].latency is not None


def test_an_engine_that_does_not_open_beside_the_others_is_not_taken(tmp_path: Path) -> None:
    opened = iter([FakeSession(right)])

    def once() -> FakeSession:
        session = next(opened, None)
        if session is None:
            raise MemoryError
        return session

    found = run(tmp_path, [FP32, method("torch fp32")], {"torch-fp32": once})
    assert found["torch fp32"].failures == ("cannot be opened to be timed: MemoryError",)
    assert found["torch fp32"].latency is None
    assert fastest(list(found.values())) is found["onnx fp32"]


def test_an_engine_that_fails_while_it_is_timed_is_not_taken(tmp_path: Path) -> None:
    found = run(tmp_path, [FP32, method("torch fp32")], {"torch-fp32": lambda: FakeSession(right, runs_left=6)})
    assert found["torch fp32"].failures == ("the engine fails while it is timed: worn out",)
    assert found["torch fp32"].latency is None
    assert fastest(list(found.values())) is found["onnx fp32"]


def test_what_does_not_pass_is_deleted_and_not_timed(tmp_path: Path) -> None:
    sessions = {"torch-fp32": lambda: FakeSession(wrong)}
    found = run(tmp_path, [FP32, method("torch fp32")], sessions)["torch fp32"]
    assert (found.engine, found.latency, found.size_bytes) == (None, None, len(BYTES))
    assert found.as_dict()["model_bytes"] == len(BYTES)
    assert [folder.name for folder in tmp_path.iterdir()] == ["onnx-fp32"]


def test_the_baseline_is_timed_though_it_does_not_pass(tmp_path: Path) -> None:
    found = run(tmp_path, [FP32, method("torch fp32")], {"onnx-fp32": lambda: FakeSession(wrong)})
    assert found["onnx fp32"].failures
    assert found["onnx fp32"].latency is not None
    assert fastest(list(found.values())) is found["torch fp32"]


def test_a_benchmark_times_what_does_not_pass(tmp_path: Path) -> None:
    found = run(tmp_path, [method("torch fp32")], {"torch-fp32": lambda: FakeSession(wrong)}, keeps_failed=True)
    assert found["torch fp32"].failures
    assert found["torch fp32"].latency is not None


POOR = Quality(9, 0.9, 0.8)


@pytest.mark.parametrize(
    ("trials", "advice"),
    [
        (
            [Trial(method("onnx int8 smooth", needs_calibration=True), quality=POOR, failures=("bad",))],
            "give other calibration samples, or allow more (--min-mean-cosine, --min-cosine), or build --precision fp32",
        ),
        (
            [
                Trial(
                    method("onnx int8"), quality=Quality(9, 1, 1, accuracy=1, reference_accuracy=90), failures=("bad",)
                )
            ],
            "allow more (--max-accuracy-drop), or build --precision fp32",
        ),
        ([Trial(FP32, quality=POOR, failures=("bad",))], "allow more (--min-mean-cosine, --min-cosine)"),
        ([Trial(FP32, failures=("bad",))], "take another --backend"),
    ],
)
def test_where_none_passes_it_is_said_what_to_do(trials: list[Trial], advice: str) -> None:
    with pytest.raises(OperatorError, match=re.escape(f": bad; {advice}")):
        fastest(trials)
