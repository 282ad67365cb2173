"""OpenVINO sessions on a real MiniLM, converted as the build does."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("openvino")

from tests.model_dirs import serialized_file
from ts_handlers.config.sections import RuntimeConfig, load_config
from ts_handlers.errors import ConfigError
from ts_handlers.machine import CpuBudget, CpuShare, cpu_share
from ts_handlers.runtime import ModelFiles, open_session
from ts_handlers.runtime.openvino import OpenVinoSession, process_core, properties
from ts_handlers.shapes import Array

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

SHAPES = [(1, 8), (4, 8), (1, 16)]


def share(threads: int = 1) -> CpuShare:
    return cpu_share(CpuBudget((0,)), 1, threads=threads)


@pytest.fixture(scope="module")
def folder(model_dirs: ModelDirs) -> Path:
    return model_dirs.get("tiny-roberta", backend="openvino", precision="fp32")


def session(folder: Path, shapes: Any = (), **settings: Any) -> OpenVinoSession:
    import yaml

    given = yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]["runtime"]
    config = load_config({"handler": {"runtime": {**given, **settings}}}).runtime
    opened = open_session(config, ModelFiles(folder, serialized_file(folder)), share(), shapes)
    assert isinstance(opened, OpenVinoSession)
    return opened


def arrays(rows: int, length: int) -> dict[str, Array]:
    ids = np.random.default_rng(rows * length).integers(5, 400, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "something_else": ids}


def test_a_graph_of_its_own_answers_as_the_graph_for_any_shape(folder: Path) -> None:
    plain, fixed = session(folder), session(folder, SHAPES)
    for shape in (*SHAPES, (2, 8), (1, 11)):
        expected, actual = plain.run(arrays(*shape)), fixed.run(arrays(*shape))
        assert actual["logits"].shape[:2] == shape
        assert actual["logits"].dtype == np.float32
        np.testing.assert_allclose(actual["logits"], expected["logits"], atol=1e-4)
    assert "a graph each for 1x8 4x8 1x16, and one for any other shape" in fixed.describe()
    assert "one graph for any shape" in plain.describe()


def test_outputs_of_one_call_are_left_alone_by_the_next(folder: Path) -> None:
    fixed = session(folder, SHAPES)
    first = fixed.run(arrays(1, 8))["logits"]
    kept = first.copy()
    fixed.run({name: array + 1 for name, array in arrays(1, 8).items()})
    np.testing.assert_array_equal(first, kept)


def test_graphs_past_the_memory_limit_are_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        limited = session(folder, [(4, 8 * number) for number in range(1, 12)], max_memory_mb=1)
    assert "max_memory_mb is 1; the other shapes share one graph" in caplog.text
    assert "11 of 11" not in caplog.text
    assert "4x88" not in limited.describe()
    assert limited.run(arrays(4, 8))["logits"].shape[:2] == (4, 8)


def test_threads_follow_the_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    core = process_core()

    def compile_model(model: Any, device: str, config: dict[str, Any]) -> Any:
        compiled.append(config["INFERENCE_NUM_THREADS"])
        return core.compile_model(model, device, config)

    counting = SimpleNamespace(read_model=core.read_model, compile_model=compile_model)
    monkeypatch.setattr("ts_handlers.runtime.openvino.process_core", lambda: counting)
    fixed = session(folder, SHAPES)
    expected = fixed.run(arrays(1, 8))["logits"]
    compiled.clear()
    fixed.change_threads(share())
    assert compiled == []
    fixed.change_threads(share(threads=2))
    assert compiled == [2] * 4
    np.testing.assert_allclose(fixed.run(arrays(1, 8))["logits"], expected, atol=1e-5)


def test_what_it_is_compiled_with() -> None:
    said = properties(RuntimeConfig(precision="int8", float_precision="bf16"), 3)
    assert said["INFERENCE_NUM_THREADS"] == 3
    assert said["ENABLE_CPU_PINNING"] is False
    assert said["INFERENCE_PRECISION_HINT"] == "bf16"
    assert properties(RuntimeConfig(precision="fp32", float_precision="bf16"), 1)["INFERENCE_PRECISION_HINT"] == "f32"
    assert properties(RuntimeConfig(precision="bf16"), 1)["INFERENCE_PRECISION_HINT"] == "bf16"


def test_settings_of_other_engines_and_unknown_precisions_are_refused(folder: Path) -> None:
    files = ModelFiles(folder, serialized_file(folder))
    with pytest.raises(ConfigError, match=r"precision is fp16; the openvino backend runs fp32, bf16, int8"):
        open_session(RuntimeConfig("openvino", precision="fp16"), files, share())
    with pytest.raises(
        ConfigError, match=r"providers is \('CPUExecutionProvider',\) and the backend is openvino; only onnx has"
    ):
        open_session(RuntimeConfig("openvino", providers=("CPUExecutionProvider",)), files, share())
    with pytest.raises(ConfigError, match="output_names is .* only torch and ipex have that setting: remove it"):
        open_session(RuntimeConfig("onnx", output_names=("scores",)), files, share())


def test_a_missing_input_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="takes an input 'attention_mask' that the handler does not make"):
        session(folder).run({"input_ids": arrays(1, 8)["input_ids"]})


def test_files_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ConfigError, match=r"OpenVINO [\d.]+ cannot load model.xml: "):
        OpenVinoSession(RuntimeConfig("openvino"), ModelFiles(tmp_path, "model.xml"), share())
    (tmp_path / "table.npy").write_text("no table")
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name, reason in (("table.npy", "table.npy cannot be read"), ("missing.npy", "missing.npy cannot be read")):
        with pytest.raises(ConfigError, match=reason):
            OpenVinoSession(RuntimeConfig("openvino", embedding_file=name), ModelFiles(tmp_path, "model.xml"), share())


def test_a_gpu_is_said_not_to_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = ModelFiles(folder, serialized_file(folder), gpu_id=1)
    with caplog.at_level(logging.WARNING):
        OpenVinoSession(RuntimeConfig("openvino"), files, share())
    assert "GPU 1 is not used" in caplog.text
