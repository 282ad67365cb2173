from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, open_session
from ts_handlers.runtime.onnx.session import check_providers, choose_providers, session_options

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHARE = cpu_share(CpuBudget((0, 1)), 1)


def write_model(folder: Path, *, dtype: int = TensorProto.INT32, output: int = TensorProto.FLOAT) -> ModelFiles:
    """Write y = float(input_ids), which takes nothing but input_ids."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input_ids"], ["y"], to=output)],
        "cast",
        [helper.make_tensor_value_info("input_ids", dtype, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", output, ["batch", "sequence"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    return ModelFiles(folder, "model.onnx")


@pytest.mark.parametrize("dtype", [TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT])
@pytest.mark.parametrize("output", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_the_graph_decides_what_is_fed_and_as_what(dtype: int, output: int, tmp_path: Path) -> None:
    session = open_session(RuntimeConfig(), write_model(tmp_path, dtype=dtype, output=output), SHARE)
    ids = np.array([[1, 2, 3]])
    result = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert result["y"].dtype == np.float32
    assert result["y"].tolist() == [[1, 2, 3]]
    assert CPU in session.describe()


def test_an_input_nobody_makes_is_named(tmp_path: Path) -> None:
    session = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    with pytest.raises(
        ConfigError, match=r"takes an input 'input_ids' that the handler does not make; it makes: pixels"
    ):
        session.run({"pixels": np.zeros((1, 1))})


def test_an_input_of_an_unknown_type_is_refused_at_load(tmp_path: Path) -> None:
    files = write_model(tmp_path, dtype=TensorProto.STRING)
    with pytest.raises(ConfigError, match=r"input_ids is of type tensor\(string\)|cannot load"):
        open_session(RuntimeConfig(), files, SHARE)


def test_a_file_that_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="ONNX Runtime cannot load model.onnx"):
        open_session(RuntimeConfig(), ModelFiles(tmp_path, "model.onnx"), SHARE)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no serialized file; name the model in handler.runtime.file"):
        ModelFiles(tmp_path).path(None)
    with pytest.raises(ConfigError, match="other.onnx is not in the archive"):
        ModelFiles(tmp_path, "model.onnx").path("other.onnx")


@pytest.mark.parametrize(
    ("cpus", "workers", "configured", "threads", "spinning"),
    [(4, 2, None, 2, "1"), (2, 4, None, 1, "0"), (4, 2, False, 2, "0"), (2, 4, True, 1, "1")],
)
def test_session_options_follow_the_share(
    cpus: int, workers: int, configured: bool | None, threads: int, spinning: str
) -> None:
    share = cpu_share(CpuBudget(tuple(range(cpus))), workers)
    options = session_options(RuntimeConfig(allow_spinning=configured), share)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == spinning


@pytest.mark.parametrize(
    ("config", "gpu_id", "available", "expected"),
    [
        (RuntimeConfig(), None, [CUDA, CPU], [(CPU, {})]),
        (RuntimeConfig(), 1, [TENSORRT, CUDA, CPU], [(CUDA, {"device_id": "1"}), (CPU, {})]),
        (RuntimeConfig(providers=(CPU,)), 1, [CUDA, CPU], [(CPU, {})]),
        (
            RuntimeConfig(providers=(TENSORRT, CUDA), provider_options=({"device_id": "5"}, {"arena": "x"})),
            2,
            [TENSORRT, CUDA, CPU],
            [(TENSORRT, {"device_id": "5"}), (CUDA, {"arena": "x", "device_id": "2"})],
        ),
    ],
)
def test_providers(config: RuntimeConfig, gpu_id: int | None, available: list[str], expected: Any) -> None:
    assert choose_providers(config, gpu_id, available) == expected


def test_a_gpu_worker_without_cuda_says_once_why_it_is_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_providers(RuntimeConfig(), 0, [CPU]) == [(CPU, {})]
    assert "GPU 0 is not used: this onnxruntime has no CUDAExecutionProvider" in caplog.text


def test_a_named_provider_that_is_missing_is_an_error(tmp_path: Path) -> None:
    config = RuntimeConfig(providers=(CUDA, CPU))
    with pytest.raises(RuntimeUnavailableError, match="asks for CUDAExecutionProvider; this onnxruntime has"):
        open_session(config, write_model(tmp_path), SHARE)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RuntimeConfig(provider_options=({},)), "needs providers by name"),
        (RuntimeConfig(providers=(CPU,), provider_options=({}, {})), "1 providers and 2 provider_options"),
    ],
)
def test_provider_options_must_match(config: RuntimeConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_providers(config, None, [CPU])


def test_a_provider_that_did_not_start_is_an_error_where_it_was_named(caplog: pytest.LogCaptureFixture) -> None:
    # No GPU here: the session's answer is made up, as ONNX Runtime gives it where CUDA's libraries are missing.
    asked: list[tuple[str, dict[str, str]]] = [(CUDA, {}), (CPU, {})]
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider could not start"):
        check_providers(RuntimeConfig(providers=(CUDA, CPU)), asked, [CPU])
    check_providers(RuntimeConfig(), asked, [CPU])
    assert "CUDAExecutionProvider could not start" in caplog.text
    check_providers(RuntimeConfig(), asked, [CUDA, CPU])


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "ts_handlers.runtime.onnx.session")
    with pytest.raises(RuntimeUnavailableError, match=r"install ts_handlers\[cpu\]"):
        open_session(RuntimeConfig(), SimpleNamespace(), SHARE)  # type: ignore[arg-type]  # not reached


class Opened:
    """A real session of ONNX Runtime that counts its calls."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.session, self.num_calls = REAL_SESSION(*arguments, **options), 0

    def run(self, *arguments: Any) -> Any:
        self.num_calls += 1
        return self.session.run(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


REAL_SESSION = ort.InferenceSession


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """What is opened from now on, in order."""
    sessions: list[Opened] = []

    def open_one(*arguments: Any, **options: Any) -> Opened:
        sessions.append(Opened(*arguments, **options))
        return sessions[-1]

    monkeypatch.setattr(ort, "InferenceSession", open_one)
    return sessions


def test_calls_side_by_side_have_a_session_of_one_thread(tmp_path: Path, opened: list[Opened]) -> None:
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    assert session.max_parallel == 2
    assert [item.get_session_options().intra_op_num_threads for item in opened] == [2, 1]
    assert "a session for calls side by side" in session.describe()
    for num_parallel in (1, 2, 3):
        assert session.run({"input_ids": np.array([[7]])}, num_parallel=num_parallel)["y"].tolist() == [[7]]
    assert [item.num_calls for item in opened] == [1, 2]


def test_without_memory_for_two_sessions_one_serves_all_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ts_handlers.runtime.onnx.session.available_memory", lambda: 100)
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    assert session.max_parallel == 1
    assert "calls are made one by one on 2 threads" in caplog.text
    assert session.run({"input_ids": np.array([[7]])})["y"].tolist() == [[7]]


def test_one_thread_needs_one_session(tmp_path: Path) -> None:
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), cpu_share(CpuBudget((0, 1)), 2))
    assert session.max_parallel == 1
    assert "side by side" not in session.describe()


def test_a_session_takes_other_threads_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Opened]
) -> None:
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    session.change_threads(cpu_share(CpuBudget((0, 1)), 1, threads=2))
    assert len(opened) == 2, "as many as it has: nothing is opened again"
    with monkeypatch.context() as patch:
        patch.setattr("ts_handlers.runtime.onnx.session.available_memory", lambda: 0)  # less needs none
        session.change_threads(cpu_share(CpuBudget((0, 1)), 2, threads=1))
    assert session.num_threads == 1
    assert session.max_parallel == 1
    session.change_threads(cpu_share(CpuBudget((0, 1)), 1, threads=2))
    assert (session.num_threads, session.max_parallel) == (2, 2)
    assert session.run({"input_ids": np.array([[7]])})["y"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("free_bytes", "providers", "reason"),
    [(100, (CPU,), "bytes and 100 are free"), (2**60, (CUDA, CPU), "it runs on CUDAExecutionProvider")],
)
def test_a_session_that_cannot_be_opened_twice_keeps_its_threads_and_says_so(
    free_bytes: int,
    providers: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No GPU here: only the name of the session's provider is another."""
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    session.providers = providers
    monkeypatch.setattr("ts_handlers.runtime.onnx.session.available_memory", lambda: free_bytes)
    session.change_threads(cpu_share(CpuBudget((0, 1, 2)), 2, threads=3))
    assert session.num_threads == 2
    (record,) = caplog.records
    assert "keeps 2 threads, though 3 fit now" in record.getMessage()
    assert reason in record.getMessage()


def test_a_model_file_that_is_gone_leaves_the_session_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session: Any = open_session(RuntimeConfig(), write_model(tmp_path), SHARE)
    (tmp_path / "model.onnx").unlink()
    session.change_threads(cpu_share(CpuBudget((0, 1, 2)), 2, threads=3))
    assert session.num_threads == 2
    assert "keeps 2 threads" in caplog.text
    assert session.run({"input_ids": np.array([[7]])})["y"].tolist() == [[7]]


def test_openvino_as_a_provider_has_the_workers_threads() -> None:
    config = RuntimeConfig(providers=("OpenVINOExecutionProvider", "CPUExecutionProvider"))
    available = ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    assert choose_providers(config, None, available, threads=3)[0] == (
        "OpenVINOExecutionProvider",
        {"num_of_threads": "3"},
    )
    own = {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "2"}}'}
    config = RuntimeConfig(providers=available, provider_options=(own, {}))
    assert choose_providers(config, None, available, threads=3)[0] == ("OpenVINOExecutionProvider", own)
