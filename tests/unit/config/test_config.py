from __future__ import annotations

from typing import Any

import pytest

from ts_handlers.config.sections import BucketingConfig, HandlerConfig, load_config
from ts_handlers.config.tasks import AnswerOutput, ClassificationOutput
from ts_handlers.errors import ConfigError


@pytest.mark.parametrize("empty", [None, {}, {"handler": {}}, {"minWorkers": 2}])
def test_nothing_configured_gives_the_defaults(empty: dict[str, Any] | None) -> None:
    assert load_config(empty) == HandlerConfig()


def test_every_section_is_read() -> None:
    config = load_config(
        {
            "handler": {
                "task": "text-classification",
                "profile": True,
                "runtime": {
                    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
                    "provider_options": [{"device_id": 1}, {}],
                    "allow_spinning": None,
                },
                "cpu": {"threads": 3},
                "bucketing": {"boundaries": [16, 64], "call_overhead_tokens": 12},
                "output": {"top_k": 2, "threshold": 1},
            }
        },
        ClassificationOutput,
    )
    assert config.runtime.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert config.runtime.provider_options == ({"device_id": "1"}, {})
    assert config.cpu.threads == 3
    assert config.bucketing == BucketingConfig(boundaries=(16, 64), call_overhead_tokens=12.0)
    assert config.output == ClassificationOutput(top_k=2, threshold=1.0)


@pytest.mark.parametrize(
    ("section", "tokens"),
    [
        ({"runtime": {"backend": "onnx", "precision": "int8"}}, 4.0),
        ({"runtime": {"backend": "onnx", "precision": "fp32"}}, 12.0),
        ({"runtime": {"backend": "torch", "precision": "bf16"}, "bucketing": {"max_batch_size": 4}}, 16.0),
        ({"runtime": {"backend": "onnx", "precision": "int8"}, "bucketing": {"call_overhead_tokens": 0}}, 0.0),
    ],
)
def test_a_call_costs_what_was_measured_for_the_engine_unless_configured(
    section: dict[str, Any], tokens: float
) -> None:
    assert load_config({"handler": section}).bucketing.call_overhead_tokens == tokens


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"bucketing": {"max_batchsize": 4}},
            r"handler\.bucketing\.max_batchsize is no setting; did you mean max_batch_size\?",
        ),
        ({"quux": 1}, r"handler\.quux is no setting; known here: bucketing, cpu"),
        ({"output": {"topk": 1}}, r"handler\.output\.topk is no setting; did you mean top_k\?"),
        ({"cpu": {"threads": 0}}, r"handler\.cpu\.threads is 0 \(int\); it must be 1 or more"),
        ({"cpu": {"threads": "two"}}, r"handler\.cpu\.threads is 'two' \(str\); it must be of type int"),
        ({"cpu": {"threads": True}}, r"handler\.cpu\.threads is True \(bool\); it must be of type int"),
        ({"cpu": 4}, r"handler\.cpu is 4 \(int\); it must be a mapping"),
        ({"bucketing": False}, r"handler\.bucketing is False \(bool\); it must be a mapping"),
        ({"output": False}, r"handler\.output is False \(bool\); it must be a mapping"),
        ({"bucketing": {"call_overhead_tokens": 10**400}}, "call_overhead_tokens is too large a number"),
        ({"bucketing": {"call_overhead_tokens": float("inf")}}, r"is inf \(float\); it must be a finite number"),
        ({"profile": 1}, r"handler\.profile is 1 \(int\); it must be of type bool"),
        (
            {"runtime": {"backend": "onx"}},
            r"backend is 'onx' \(str\); choose one of: onnx, openvino, torch, ipex",
        ),
        (
            {"runtime": {"providers": "cuda"}},
            r"providers is 'cuda' \(str\); choose one of: auto or .* it must be a list",
        ),
        ({"runtime": {"providers": [1]}}, r"providers\[0\] is 1 \(int\)"),
        ({"runtime": {"provider_options": [3]}}, r"provider_options\[0\] is 3 \(int\); it must be a mapping"),
        ({"bucketing": {"boundaries": "8,16"}}, r"boundaries is '8,16' \(str\); it must be a list"),
        ({"bucketing": {"boundaries": [0]}}, r"boundaries is \(0,\) \(tuple\); it must be 1 or more"),
        ({"output": [1]}, r"handler\.output is \[1\] \(list\); it must be a mapping"),
        (None, r"handler is None \(NoneType\); it must be a mapping"),
        ([1], r"handler is \[1\] \(list\); it must be a mapping"),
    ],
)
def test_a_mistake_names_its_path_and_what_to_do(section: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"handler": section}, AnswerOutput)


def test_a_handler_without_settings_says_so() -> None:
    with pytest.raises(ConfigError, match=r"handler\.output\.x is no setting; there are no settings here"):
        load_config({"handler": {"output": {"x": 1}}})
