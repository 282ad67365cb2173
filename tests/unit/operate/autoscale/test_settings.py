from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_handlers.errors import ConfigError
from ts_handlers.operate.autoscale.settings import ModelSettings, parse_settings, read_settings

EXAMPLE = Path(__file__).parents[4] / "configs/kubernetes/components/worker-autoscaler/autoscale.yaml"


def test_a_model_alone_is_enough() -> None:
    settings = parse_settings({"models": {"sentiment": None}}, "a.yaml")
    assert settings.models == {"sentiment": ModelSettings()}
    assert settings.torchserve.management_url == "http://127.0.0.1:8081"
    assert settings.kubernetes is None


def test_policy_and_costs_stand_with_their_model() -> None:
    content = {"models": {"a": {"max_workers": 8, "cpus_per_worker": 2}, "b": {"load_time_s": 5}}}
    settings = parse_settings(content, "a.yaml")
    assert (settings.models["a"].max_workers, settings.models["a"].cpus_per_worker) == (8, 2.0)
    assert list(settings.models) == ["a", "b"]


MODELS: dict[str, Any] = {"m": {}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "a.yaml: models is missing"),
        ({"models": {}}, "a.yaml: models is missing"),
        ({"models": ["m"]}, "a.yaml: models is .*; it must be a mapping"),
        ({"models": {"m": {"max_worker": 2}}}, "a.yaml: models.m.max_worker is no setting; did you mean max_workers?"),
        ({"models": {"m": {"cpu_per_worker": 2}}}, "did you mean cpus_per_worker?"),
        ({"models": {"m": {"min_workers": 0}}}, "a.yaml: models.m.min_workers is 0 .*; it must be 1 or more"),
        ({"models": {"m": {"min_workers": 5}}}, "a.yaml: models.m.max_workers is 4; it must be min_workers"),
        ({"models": MODELS, "intervall_s": 1}, "a.yaml: intervall_s is no setting; did you mean interval_s?"),
        ({"models": MODELS, "budget": {"max_cpus": "all"}}, "a.yaml: budget.max_cpus is 'all'"),
        ({"models": MODELS, "torchserve": {"metrics_url": "8082"}}, "a.yaml: torchserve.metrics_url is '8082'"),
        ({"models": MODELS, "torchserve": {"management_url": "http://["}}, "torchserve.management_url is 'http://\\['"),
        ({"models": MODELS, "metrics": {"port": 70000}}, "a.yaml: metrics.port is 70000; it must be 1 to 65535"),
        ({"models": MODELS, "kubernetes": {}}, "a.yaml: budget.max_cpus is missing; with kubernetes"),
        (
            {"models": MODELS, "kubernetes": {"api_url": "x"}, "budget": {"max_cpus": 2}},
            "a.yaml: kubernetes.api_url is 'x'",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_path(content: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_settings(content, "a.yaml")


def test_a_file_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read .*none.yaml: No such file"):
        read_settings(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("models: {")
    with pytest.raises(ConfigError, match="broken.yaml is no YAML"):
        read_settings(broken)


def test_the_component_s_configuration_is_one() -> None:
    settings = read_settings(EXAMPLE)
    assert settings.kubernetes is not None
    assert settings.kubernetes.container == "torchserve"
    assert yaml.safe_load(EXAMPLE.read_text())["metrics"]["host"] == "0.0.0.0", "Prometheus is outside the pod"
