"""What a worker is: what it imports, how it starts, and what an operator gets told."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from torch.profiler import ProfilerActivity

import ts_handlers
from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.batching.padding import ModelInput
from ts_handlers.config.sections import BucketingConfig, HandlerConfig, WarmupConfig
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.machine import CpuBudget, limit_threads
from ts_handlers.startup import declared_workers, expect_workers, warm_up
from ts_handlers.testing import FakeContext, load_handler, predict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.model_dirs import ModelDirs

START = """
import sys
from pathlib import Path
import ts_handlers
assert not {"torch", "ts", "onnxruntime", "numpy"} & set(sys.modules), "importing the package must do nothing else"
from ts_handlers.testing import load_handler, predict
handler = load_handler(ts_handlers.TextClassificationHandler, Path(sys.argv[1]), serialized_file="model.onnx")
assert predict(handler, "fine")[0].status == 200
loaded = {name.split(".")[0] for name in sys.modules} | {".".join(name.split(".")[:2]) for name in sys.modules}
print(",".join(sorted(loaded & {"transformers", "ts_handlers.build", "ts_handlers.operate", "ts_handlers.cli", "onnx"})))
"""


def test_a_worker_imports_neither_transformers_nor_build_nor_operate(model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-distilbert")
    command = [sys.executable, "-c", START, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1:] in ([], [""])


def test_the_package_has_only_its_public_names() -> None:
    for name in ts_handlers.__all__:
        assert getattr(ts_handlers, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Handler'"):
        ts_handlers.Handler  # noqa: B018


def test_one_line_says_what_was_decided(model_dirs: ModelDirs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ts_handlers")
    folder = model_dirs.get("tiny-distilbert")
    config = {
        "minWorkers": 2,
        "maxWorkers": 2,
        "handler": {"bucketing": {"boundaries": [16, 64]}, "tokenizer": {"pad_token_id": 1}},
    }
    handler = load_handler(ts_handlers.TextClassificationHandler, folder, config, serialized_file="model.onnx")
    lines = [record.getMessage() for record in caplog.records if record.name == "ts_handlers.handler"]
    assert len(lines) == 1
    for part in (
        "text-classification ready",
        "CPUExecutionProvider",
        "1 thread on CPUs",
        "2 workers, minWorkers of this model",
    ):
        assert part in lines[0]
    assert "padded to [16, 64]; warmed up 1x16 8x16 1x64 8x64 in" in lines[0]
    assert handler.initialized


def test_a_worker_follows_what_changes_between_two_batches(
    model_dirs: ModelDirs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ts_handlers")
    folder = model_dirs.get("tiny-distilbert")
    monkeypatch.setenv("TS_HANDLERS_WORKERS", "1")
    monkeypatch.setattr("ts_handlers.machine.placement.worker.LOOK_INTERVAL_S", 0.0)
    handler = load_handler(ts_handlers.TextClassificationHandler, folder, {}, serialized_file="model.onnx")
    before = predict(handler, "fine")[0].json()
    threads = handler.share.threads
    assert predict(handler, "fine")[0].json() == before
    monkeypatch.setattr(
        "ts_handlers.machine.placement.worker.cpu_budget", lambda *_: CpuBudget((0, 1, 2, 3), float(threads + 1))
    )
    try:
        assert predict(handler, "fine")[0].json() == before
        assert handler.share.threads == threads + 1
        assert handler.session.num_threads == threads + 1  # type: ignore[attr-defined]
    finally:
        limit_threads(threads)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("ts_handlers")]
    assert sum("now" in message for message in ours) == 1


def test_calls_side_by_side_answer_as_calls_one_by_one_do(model_dirs: ModelDirs, texts: list[str]) -> None:
    folder = model_dirs.get("tiny-distilbert")
    short = [text for text in texts if len(text) < 100]
    answers = []
    for threads in (1, 3):
        config = {"handler": {"cpu": {"threads": threads}, "tokenizer": {"pad_token_id": 1}}}
        handler = load_handler(ts_handlers.TextClassificationHandler, folder, config, serialized_file="model.onnx")
        assert handler.session.max_parallel == threads
        answers.append([response.json() for response in predict(handler, *short)])
    limit_threads(1)
    for alone, together in zip(*answers, strict=True):
        assert alone == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize(
    ("environ", "config", "expected"),
    [
        ({"TS_HANDLERS_WORKERS": "5"}, {"minWorkers": 2, "maxWorkers": 2}, (5, False)),
        ({}, {"minWorkers": 2, "maxWorkers": 2}, (2, True)),
        ({}, {}, (len(os.sched_getaffinity(0)), True)),
    ],
)
def test_who_says_how_many_workers(environ: dict[str, str], config: dict[str, Any], expected: tuple[int, bool]) -> None:
    declared = expect_workers(config, environ)
    assert (declared.num_workers, declared.is_of_model) == expected


def test_a_handler_that_cannot_be_awaited_refuses_asynchronous_communication(model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-distilbert")
    with pytest.raises(ConfigError, match=r"asyncCommunication is true in model-config\.yaml.*remove it"):
        load_handler(
            ts_handlers.TextClassificationHandler, folder, {"asyncCommunication": True}, serialized_file="model.onnx"
        )


def test_an_archive_of_another_task_is_refused(model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-distilbert")
    with pytest.raises(ConfigError, match="handler.task is text-classification and QuestionAnsweringHandler serves"):
        load_handler(ts_handlers.QuestionAnsweringHandler, folder, serialized_file="model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "index_to_name.json is not in the archive"),
        ({"0": "a", "2": "b"}, "without a gap"),
        ({"0": "a", "1": "a"}, "two labels one name"),
        (["a"], "must map"),
    ],
)
def test_labels_that_cannot_be_used(content: Any, message: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    for file in model_dirs.get("tiny-distilbert").iterdir():
        if file.is_file() and file.name != "index_to_name.json":
            (tmp_path / file.name).symlink_to(file)
    if content is not None:
        (tmp_path / "index_to_name.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_handler(ts_handlers.TextClassificationHandler, tmp_path, serialized_file="model.onnx")


@pytest.mark.parametrize("stride", [11, 13, 16])
def test_windows_that_a_question_leaves_nothing_of_are_refused(stride: int, model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-roberta-answers")
    output = {"max_seq_len": 16, "doc_stride": stride}
    config = {"handler": {"tokenizer": {"pad_token_id": 1}, "output": output}}
    with pytest.raises(ConfigError, match=f"doc_stride is {stride}; windows of 16 tokens share less than 11"):
        load_handler(ts_handlers.QuestionAnsweringHandler, folder, config, serialized_file="model.onnx")


def test_the_profilers_of_torchserve_work(
    model_dirs: ModelDirs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = model_dirs.get("tiny-distilbert")
    config = {"handler": {"profile": True, "tokenizer": {"pad_token_id": 1}}}
    handler: Any = load_handler(ts_handlers.TextClassificationHandler, folder, config, serialized_file="model.onnx")
    assert predict(handler, "fine")[0].status == 200
    for stage in ("preprocess", "inference", "postprocess"):
        assert len(handler.context.metrics.values(f"ts_handler_{stage}")) == 1
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "true")
    handler.profiler_args = {"activities": [ProfilerActivity.CPU], "on_trace_ready": lambda _: None}
    assert predict(handler, "fine", b"\xff")[1].status == 400


def test_a_bug_in_a_hook_fails_its_row_alone(model_dirs: ModelDirs, caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(ts_handlers.TextClassificationHandler):
        def decode(self, instance: Any) -> Any:
            if instance == "private":
                raise KeyError(instance)
            return super().decode(instance)

    handler = load_handler(Buggy, model_dirs.get("tiny-distilbert"), serialized_file="model.onnx")
    responses = predict(handler, "fine", "private", "fine")
    assert [response.status for response in responses] == [200, 500, 200]
    assert "a handler hook failed with KeyError" in caplog.text
    assert "private" not in caplog.text


def test_a_row_whose_prediction_json_cannot_carry_fails_alone(model_dirs: ModelDirs) -> None:
    class Strange(ts_handlers.TextClassificationHandler):
        def format(self, example: Any, inputs: Any, outputs: Any) -> Any:
            return object() if example.text == "strange" else {"fine": 1.0}

    handler = load_handler(Strange, model_dirs.get("tiny-distilbert"), serialized_file="model.onnx")
    responses = predict(handler, "fine", "strange")
    assert [response.status for response in responses] == [200, 500]


def test_a_handler_of_nothing_says_what_to_override(tmp_path: Path) -> None:
    from ts_handlers.handler import InferenceHandler

    handler = InferenceHandler()
    assert handler.decode("x") == "x"
    assert handler.warmup_input(8) is None
    assert (handler.max_length, dict(handler.pad_values)) == (None, {})
    with pytest.raises(NotImplementedError, match="InferenceHandler must override transform"):
        handler.transform("x")
    with pytest.raises(NotImplementedError, match="InferenceHandler must override format"):
        handler.format("x", [], [])


def test_a_hook_without_memory_fails_its_row_alone(model_dirs: ModelDirs) -> None:
    class Full(ts_handlers.TextClassificationHandler):
        def decode(self, instance: Any) -> Any:
            raise MemoryError

    handler = load_handler(Full, model_dirs.get("tiny-distilbert"), serialized_file="model.onnx")
    assert predict(handler, "fine")[0].status == 507


def test_errors_of_a_team_s_own_class_keep_their_form(model_dirs: ModelDirs) -> None:
    class TeapotError(ts_handlers.RequestError):
        status = 418

        def __init__(self) -> None:
            super().__init__("short and stout", code=7)  # type: ignore[arg-type]  # a number, as a team may choose

    class Teapot(ts_handlers.TextClassificationHandler):
        def decode(self, instance: Any) -> Any:
            raise TeapotError

    handler = load_handler(Teapot, model_dirs.get("tiny-distilbert"), serialized_file="model.onnx")
    response = predict(handler, ["a"])[0]
    assert response.status == 418
    assert response.json() == {"error": {"code": "7", "message": "instance 0: short and stout"}}


@pytest.mark.parametrize("stride", [126, 127, 500])
def test_a_stride_that_leaves_a_window_nothing_is_refused(stride: int, model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-roberta")
    config = {"handler": {"tokenizer": {"pad_token_id": 1}, "output": {"stride": stride}}}
    with pytest.raises(
        ConfigError, match=f"handler.output.stride is {stride}; windows of 128 tokens share less than 126"
    ):
        load_handler(ts_handlers.TokenClassificationHandler, folder, config, serialized_file="model.onnx")


def test_any_failure_to_load_is_one_that_torchserve_reports(model_dirs: ModelDirs, tmp_path: Path) -> None:
    for file in model_dirs.get("tiny-distilbert").iterdir():
        if file.is_file() and file.name != "tokenizer.json":
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tokenizer.json").write_text("{broken", encoding="utf-8")
    with pytest.raises(OperatorError, match="TextClassificationHandler cannot be loaded: "):
        load_handler(ts_handlers.TextClassificationHandler, tmp_path, serialized_file="model.onnx")


@pytest.mark.parametrize(
    ("config", "workers"),
    [
        ({}, None),
        ({"minWorkers": 2}, None),
        ({"minWorkers": 2, "maxWorkers": 1}, None),
        ({"minWorkers": "2", "maxWorkers": 2}, None),
        ({"minWorkers": True, "maxWorkers": 2}, None),
        ({"minWorkers": -1, "maxWorkers": 2}, None),
        ({"minWorkers": 2, "maxWorkers": 4}, 2),
    ],
)
def test_declared_workers_count_where_torchserve_heeds_them(config: dict[str, Any], workers: int | None) -> None:
    assert declared_workers(config) == workers


def make_input(length: int) -> ModelInput:
    import numpy as np

    return ModelInput({"input_ids": np.zeros(length)}, length)


@pytest.mark.parametrize(
    ("config", "max_length", "shapes"),
    [
        (HandlerConfig(), None, ((1, 16), (8, 16), (1, 64), (8, 64), (1, 512), (4, 512))),
        (HandlerConfig(), 40, ((1, 16), (8, 16), (1, 40), (8, 40))),
        (HandlerConfig(bucketing=BucketingConfig(boundaries=(32,), max_batch_size=2)), 64, ((1, 32), (2, 32))),
        (HandlerConfig(warmup=WarmupConfig(lengths=(5,))), 64, ((1, 5), (8, 5))),
        (HandlerConfig(warmup=WarmupConfig(enabled=False)), 64, ()),
    ],
)
def test_warm_up_runs_the_shapes_of_the_buckets(config: HandlerConfig, max_length: int | None, shapes: Any) -> None:
    seen: list[tuple[int, int]] = []

    def run(inputs: Any, plan: BatchPlan) -> None:
        assert len(inputs) == len(plan.indices)
        seen.append((len(plan.indices), plan.padded_length))

    assert warm_up(config, max_length, make_input, run).shapes == tuple(seen) == shapes


def test_a_handler_without_an_input_to_warm_up_with_is_not_warmed_up() -> None:
    assert warm_up(HandlerConfig(), 64, lambda _: None, lambda *_: None).shapes == ()


def test_declared_metrics_are_used_and_others_declared(tmp_path: Path) -> None:
    from ts.metrics.metric_type_enum import MetricTypes

    from ts_handlers.hosts.torchserve.metrics import CATALOGUE, RUN_SECONDS, WorkerMetrics

    context = FakeContext(tmp_path)
    declared = context.metrics.add_metric_to_cache(RUN_SECONDS.name, "s", [], MetricTypes.HISTOGRAM)
    WorkerMetrics(context.metrics, MetricTypes)
    assert context.metrics.cache[MetricTypes.HISTOGRAM][RUN_SECONDS.name] is declared
    assert sum(len(metrics) for metrics in context.metrics.cache.values()) == len(CATALOGUE)
