"""The sweep's own parts, on one architecture; the whole is run by hand."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from sweeping.__main__ import RESULTS, main
from sweeping.architectures import TASKS, architectures, small_config
from sweeping.one import main as build_one
from sweeping.page import write_page

RIGHT = {"task": "text-classification", "name": "bert", "backend": "onnx", "verdict": "right", "difference": 1.2e-7}
REFUSED = {**RIGHT, "backend": "torch", "verdict": "refused", "difference": None, "reason": "it is too large"}


def test_architectures_are_those_that_transformers_registers() -> None:
    found = {task: {item.name for item in architectures((task,))} for task in TASKS}
    assert {"bert", "gpt2", "t5"} <= found["text-classification"]
    assert {"detr", "yolos"} <= found["object-detection"]
    assert len({name for task in TASKS[:3] for name in found[task]}) > 60


def test_a_small_model_is_small_and_has_its_labels() -> None:
    [bert] = [item for item in architectures(("text-classification",)) if item.name == "bert"]
    config = small_config(bert, 3, {"pad_token_id": 0})
    assert (config.hidden_size, config.num_hidden_layers, config.id2label) == (32, 2, {0: "a", 1: "b", 2: "c"})


def test_one_build_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_one(["token-classification", "bert", "onnx"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["verdict"] == "right"
    assert said["difference"] < 1e-4


@pytest.mark.parametrize(("verdict", "code"), [("right", 0), ("refused", 0), ("WRONG", 1)])
def test_a_wrong_answer_is_exit_code_1(
    verdict: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    RESULTS.parent.mkdir()
    RESULTS.write_text(json.dumps({**RIGHT, "verdict": verdict}) + "\n")
    arguments = ["--task", "text-classification", "--only", "no such architecture"]
    assert main(arguments) == code
    assert ("bert onnx: WRONG" in capsys.readouterr().out) == (code == 1)


def test_the_page(tmp_path: Path) -> None:
    left_out: dict[str, Any] = {**RIGHT, "name": "lost", "verdict": "not made", "reason": "no"}
    write_page([RIGHT, REFUSED, left_out], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| bert | right, 1e-07 | refused (1) |" in page
    assert "\n1. it is too large" in page
    assert "not tried: lost" in page


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process its memory."""
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
