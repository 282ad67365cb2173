"""What the benchmarks' models are made of, and what is said of engines and of a request's time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.experiments import precision
from bench.experiments.idle import stage_shares
from bench.experiments.overhead import HOOKS, IDLE, MODEL_RUN, limit_parts, median_parts, served_parts
from bench.models import sentences
from bench.models.sentences import Rated, split_rated
from bench.process import CpuTime
from bench.report import Block

RATED = [Rated(f"{'good' if number % 2 else 'bad'} number {number}", number % 2 - 0.5) for number in range(40)]


def test_no_sentence_is_for_two_purposes_and_what_is_hardly_either_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rated = [Rated("fair", 0.4), Rated("fine\u0085 day", 0.5), Rated("rain", -3.0), Rated("rain", 2.0)]
    assert sorted(split_rated(rated)[1]) == [("fine day", 1), ("rain", 0)]
    monkeypatch.setattr(sentences, "NUM_EVALUATION", 10)
    monkeypatch.setattr(sentences, "NUM_TRAINING", 20)
    training, evaluation = split_rated(RATED * 2)
    assert (len(training), len(evaluation)) == (20, 10)
    assert not {text for text, _ in training} & {text for text, _ in evaluation}
    assert (training, evaluation) == split_rated(RATED)


STAGES = {"decode": 0.05, "transform": 0.15, "run": 4.0, "format": 0.1}


def served(*, worker_s: float = 5.0, waiting_s: float = 0.0, scale: float = 1.0, rate: float = 320.0) -> Block:
    """1,000 requests in batches of four, of which five were observed; stages in ms a request."""
    gained = {"ts_inference_requests_total": 1000.0}
    means = {f"ts_handlers_{stage}_seconds": ms * scale * 4 / 1000 for stage, ms in STAGES.items()}
    for metric, mean in (means | {"ts_handlers_batch_fill_ratio": 0.5}).items():
        gained |= {f"{metric}_sum": mean * 5, f"{metric}_count": 5.0}
    cpu = CpuTime(worker_s + 0.6, 0.6, waiting_s)
    return Block("served", 1, rate, 9.0, 9.0, 1000, {}, client_cpu_s=0.35, cpu=cpu, gained=gained)


def test_the_parts_of_a_request_make_up_the_whole() -> None:
    parts = served_parts(served(), 2)
    expected = [4.0, 0.2, 0.1, 0.7, 0.6, 0.35, 0.3]  # run, hooks, format, rest, Java, load generator, idle
    assert list(parts.values()) == pytest.approx(expected)
    assert sum(parts.values()) == pytest.approx(2000.0 / 320.0)


def test_waiting_for_a_cpu_is_taken_out_of_the_stages() -> None:
    parts = served_parts(served(waiting_s=5.0, scale=2.0), 2)
    assert parts[MODEL_RUN] == pytest.approx(4.0)
    assert parts[HOOKS] == pytest.approx(0.2)


def test_in_process_there_is_the_model_the_hooks_and_what_was_left_idle() -> None:
    block = Block("in process", 1, 200.0, None, None, 1000, {}, more={"hooks_s": 1.0, "run_s": 9.0, "cpu_s": 5.0})
    assert limit_parts(block, 2) == {MODEL_RUN: pytest.approx(4.5), HOOKS: pytest.approx(0.5), IDLE: pytest.approx(5.0)}
    assert median_parts([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0, "b": 7.0}]) == {"a": 2.0, "b": 6.0}


def test_a_worker_is_idle_for_what_its_model_leaves_of_the_time() -> None:
    shares = stage_shares(served(rate=200.0))
    assert shares["run"] == pytest.approx(0.8)
    assert shares["outside"] == pytest.approx(1 - 0.86)


def trial(name: str, ms: float, cosine: float = 1.0, **quality: float) -> dict[str, Any]:
    shapes = {"1x9": ms, "1x24": 2 * ms, "1x40": 3 * ms, "8x9": 4 * ms, "8x24": 5 * ms, "8x40": 6 * ms}
    judged = {"mean_cosine": cosine, "min_cosine": cosine - 0.005, "agreement": 99.0} | quality
    found: dict[str, Any] = {"method": name, "failures": [], "model_bytes": 2**21, "quality": judged}
    return found | {"latency": {"ms_per_sample": ms, "ms_by_shape": shapes}}


TRIALS = [
    trial("onnx fp32", 4.0),
    trial("onnx int8 dynamic", 1.6, 0.99),
    trial("openvino bf16", 2.5, 0.9995),
    trial("torch fp32", 5.0, 0.9999),
    {"method": "torch int8 inc", "failures": ["it broke"]},
]


def test_engines_come_fastest_first_with_their_speed_and_whether_the_gate_lets_them_pass() -> None:
    subject = precision.SUBJECTS["embeddings"]
    text = precision.subject_text(subject, {"trials": TRIALS, "left_out": {"ipex bf16": "needs ipex"}})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [row[:3] for row in rows[2:]] == [
        ["onnx", "int8", "dynamic"],
        ["openvino", "bf16", ""],
        ["onnx", "fp32", ""],
        ["torch", "fp32", ""],
    ]
    assert rows[0][7:9] == ["1 x 24 ms", "8 x 24 ms"]
    assert rows[2][3:] == ["99.00", "0.99000", "0.9850", "2.0", "3.20", "8.00", "1.60", "2.50", "fails"]
    assert "Aim: 2x onnx fp32 at a mean cosine of 0.998; **not reached**, openvino bf16 has 1.60x at 0.99950." in text
    assert text.endswith("* torch int8 inc: it broke\n* ipex bf16: needs ipex")
