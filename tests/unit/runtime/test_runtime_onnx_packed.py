"""Weights that workers share: real sessions of a model of 4 MiB, each of several workers'."""

from __future__ import annotations

import fcntl
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.machine import CpuBudget, CpuShare, cpu_share
from ts_handlers.runtime import ModelFiles, open_session
from ts_handlers.runtime.onnx.packed import FOLDER, MIN_BYTES
from ts_handlers.shapes import Array

BUDGET = CpuBudget((0, 1))
ONE_OF_TWO, ALONE = cpu_share(BUDGET, 2), cpu_share(BUDGET, 1)
INPUTS = {"x": np.linspace(-1, 1, 3 * 1024, dtype=np.float32).reshape(3, 1024)}


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    """A product with 1024 x 1024 weights."""
    return write_model(tmp_path, 1024)


def write_model(folder: Path, size: int) -> ModelFiles:
    weights = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    return ModelFiles(folder, "model.onnx")


def answer(files: ModelFiles, share: CpuShare = ONE_OF_TWO, **settings: Any) -> Array:
    return open_session(RuntimeConfig(**settings), files, share).run(INPUTS)["y"]


def packed(files: ModelFiles) -> dict[str, int]:
    """Names of what is written for workers to share -> when it was."""
    return {path.name: path.stat().st_mtime_ns for path in files.model_dir.glob(f"{FOLDER}/model-*")}


def test_what_is_shared_answers_as_what_is_not(files: ModelFiles) -> None:
    alone = answer(files, ALONE)
    assert not (files.model_dir / FOLDER).exists()
    assert np.array_equal(answer(files), alone)
    first = packed(files)
    assert sorted(Path(name).suffix for name in first) == [".bin", ".onnx"]
    assert np.array_equal(answer(files), alone)
    assert packed(files) == first


def test_weights_are_mapped(files: ModelFiles) -> None:
    session = open_session(RuntimeConfig(), files, ONE_OF_TWO)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert [name for name in packed(files) if name in maps] == [name for name in packed(files) if ".bin" in name]
    del session


def test_another_model_of_the_same_name_is_packed_anew(files: ModelFiles) -> None:
    before = answer(files)
    names = set(packed(files))
    model = onnx.load(str(files.model_dir / "model.onnx"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(1024, dtype=np.float32), "w"))
    onnx.save(model, str(files.model_dir / "model.onnx"))
    assert np.array_equal(answer(files), INPUTS["x"])
    assert not np.array_equal(before, INPUTS["x"])
    assert len(set(packed(files)) - names) == 2


@pytest.mark.parametrize(
    ("settings", "size"), [({"share_weights": False}, 1024), ({}, 256)], ids=["turned off", "a small model"]
)
def test_what_is_not_shared(settings: dict[str, Any], size: int, tmp_path: Path) -> None:
    files = write_model(tmp_path, size)
    assert ((files.model_dir / "model.onnx").stat().st_size >= MIN_BYTES) is (size == 1024)
    open_session(RuntimeConfig(**settings), files, ONE_OF_TWO)
    assert not (files.model_dir / FOLDER).exists()


def test_a_folder_that_cannot_be_written_is_said(files: ModelFiles, caplog: pytest.LogCaptureFixture) -> None:
    (files.model_dir / FOLDER).write_text("in the way", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(answer(files), answer(files, ALONE))
    assert "each worker has weights of its own: model-" in caplog.text
    assert "cannot be written ([Errno 17] File exists" in caplog.text


def test_what_was_written_and_is_broken_is_said(files: ModelFiles, caplog: pytest.LogCaptureFixture) -> None:
    expected = answer(files)
    for name in packed(files):
        (files.model_dir / FOLDER / name).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(answer(files), expected)
    assert "weights are not shared: ONNX Runtime cannot load model-" in caplog.text


WRITER = """
import sys
from pathlib import Path
from ts_handlers.runtime.onnx import packed
def write(path, weights):
    path.with_name(weights).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
packed.packed_model(Path("model.onnx"), "", write)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_matters(files: ModelFiles) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], cwd=files.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        folder = files.model_dir / FOLDER
        with (folder / "lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another worker would wait
        writer.kill()
    assert [path.name for path in folder.iterdir() if path.is_dir()] != []
    assert np.array_equal(answer(files), answer(files, ALONE))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert len(packed(files)) == 2
