from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_handlers.hosts.torchserve.metrics import CATALOGUE
from ts_handlers.operate.metrics_config import metrics_yaml

ROOT = Path(__file__).parents[3]


def test_the_committed_metrics_yaml_is_the_generated_one() -> None:
    assert (ROOT / "configs" / "metrics.yaml").read_text(encoding="utf-8") == metrics_yaml()


def test_metrics_yaml_names_every_metric_with_its_dimensions_in_order() -> None:
    metrics: Mapping[str, Any] = yaml.safe_load(metrics_yaml())
    worker = {
        metric["name"]: (kind, metric["dimensions"]) for kind, of in metrics["model_metrics"].items() for metric in of
    }

    for spec in CATALOGUE:
        assert worker[spec.name] == (spec.kind, [*spec.dimensions, "ModelName", "Level"])
    assert {"HandlerTime", "PredictionTime"} < set(worker)


def test_metrics_yaml_names_what_torchserve_looks_for() -> None:
    package = pytest.importorskip("ts")
    stock = yaml.safe_load((Path(package.__file__).parent / "configs" / "metrics.yaml").read_text(encoding="utf-8"))
    ours = yaml.safe_load(metrics_yaml())

    def flat(section: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
        return {(kind, metric["name"]): metric["dimensions"] for kind, of in section.items() for metric in of}

    for section in ("ts_metrics", "model_metrics"):
        assert flat(stock[section]).items() <= flat(ours[section]).items()
