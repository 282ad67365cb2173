from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.unit.operate.traps.sites import YAML, Site, expect


@pytest.mark.parametrize(
    ("changes", "severity", "key", "words"),
    [
        ({"metrics_mode": "log"}, "warning", "metrics_mode", "metrics go to the logs only"),
        ({"metrics_mode": None}, "warning", "metrics_mode", "metrics go to the logs only"),
        ({"metrics_config": None}, "warning", "metrics_config", "they are dropped"),
        ({"metrics_config": "metrics.yaml"}, "warning", "metrics_config", "counts from the folder"),
        ({"metrics_config": "/nowhere/metrics.yaml"}, "problem", "metrics_config", "no worker starts"),
    ],
)
def test_a_value(site: Site, changes: Mapping[str, str | None], severity: str, key: str, words: str) -> None:
    site.values.update(changes)
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        ("a: [", "problem", "no YAML"),
        ("[]", "problem", "it holds list"),
        ("model_metrics: {}\n", "problem", "no model_metrics"),
        ("model_metrics: {counter: [{name: x}]}\n", "warning", "drops metrics it does not name"),
    ],
)
def test_a_metrics_file(site: Site, text: str, severity: str, words: str) -> None:
    (site.store / "metrics.yaml").write_text(text)
    expect(site, severity, "metrics_config", words)


def test_dimensions_in_another_order(site: Site) -> None:
    file = site.store / "metrics.yaml"
    file.write_text(file.read_text().replace("[Code, ModelName, Level]", "[ModelName, Level, Code]"))
    expect(site, "warning", "metrics_config", "ts_handlers_rejected_rows_total with dimensions")


def test_metrics_of_others_are_theirs(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0")
    (site.store / "metrics.yaml").write_text("model_metrics: {counter: [{name: x}]}\n")
    assert site.findings() == []

    site.values["metrics_config"] = None
    assert site.findings() == []


def test_a_handler_table_of_torchserves_examples_is_not_ours(site: Site, write_mar: Callable[..., Path]) -> None:
    (site.store / "metrics.yaml").write_text("model_metrics: {counter: [{name: x}]}\n")
    write_mar("mini", "1.0", config=YAML.replace("task: text-classification", "max_length: 50"))
    assert site.findings() == []

    write_mar("mini", "1.0", config=YAML)
    expect(site, "warning", "metrics_config", "drops metrics it does not name")
