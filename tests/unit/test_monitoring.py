"""configs/prometheus, the dashboard and the components that carry them: that they agree, and that promtool takes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import find_program

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from monitoring import DASHBOARD, PROMETHEUS_RULE, RULES, SCALED_OBJECT, prometheus_rule_yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "configs" / "prometheus"
COMPONENTS = ROOT / "configs" / "kubernetes" / "components"
OTHERS = re.compile(r"up|ALERTS|container_\w+|kube_pod_container_resource_limits")
"""Metrics of Prometheus itself, the kubelet and kube-state-metrics."""


def groups() -> list[dict[str, Any]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def queries() -> list[str]:
    triggers = yaml.safe_load(SCALED_OBJECT.read_text(encoding="utf-8"))["spec"]["triggers"]
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*expressions, *(trigger["metadata"]["query"] for trigger in triggers)]


def test_the_dashboard_is_beside_the_other_configurations_too() -> None:
    assert (ROOT / "configs" / "grafana" / DASHBOARD.name).resolve() == DASHBOARD


def test_the_prometheus_rule_holds_the_rules() -> None:
    text = PROMETHEUS_RULE.read_text(encoding="utf-8")
    assert text == prometheus_rule_yaml()
    assert yaml.safe_load(text)["spec"] == {"groups": groups()}


@pytest.mark.parametrize(
    "words",
    [("check", "rules", *RULES), ("check", "config", PROMETHEUS / "prometheus.yml")]
    + [("test", "rules", path) for path in sorted((PROMETHEUS / "tests").glob("*.yml"))],
    ids=lambda words: f"{words[0]}-{Path(words[2]).stem}",
)
def test_promtool_takes_it(words: tuple[object, ...]) -> None:
    command = [find_program("promtool"), *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_metric_is_exported_or_recorded() -> None:
    exported = yaml.safe_load((ROOT / "configs" / "metrics.yaml").read_text(encoding="utf-8"))
    names = {rule["record"] for rule in rules("record")}
    for section in ("ts_metrics", "model_metrics"):
        for kind, metrics in exported[section].items():
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            names |= {metric["name"] + suffix for metric in metrics for suffix in suffixes}
    used = {name for text in [*queries(), *(rule["expr"] for rule in rules("expr"))] for name in metrics_in(text)}
    assert {name for name in used - names if not OTHERS.fullmatch(name)} == set()
    assert len(used) > 25


def metrics_in(expression: str) -> set[str]:
    """Return the names before a selector, a range, an operator or a bracket; not functions, labels and keywords."""
    without = re.sub(r'"[^"]*"|\{[^}]*\}|\b(?:by|on|group_left|unless on) ?\([^)]*\)', " ", expression)
    words = re.findall(r"(?<![\w.])[A-Za-z_][\w:]*(?!\w* *\()", re.sub(r"\[[^\]]*\]", " ", without))
    return set(words) - {"by", "on", "or", "unless", "group_left", "bool"}


def test_keda_asks_for_recorded_names_and_takes_no_loss_for_an_empty_queue() -> None:
    spec = yaml.safe_load(SCALED_OBJECT.read_text(encoding="utf-8"))["spec"]
    recorded = {rule["record"] for rule in rules("record")}
    for trigger in spec["triggers"]:
        name, selector = re.fullmatch(r"([\w:]+)\{(.+)\}", trigger["metadata"]["query"]).groups()  # type: ignore[union-attr]
        assert name in recorded
        assert set(re.findall(r"(\w+)=", selector)) == {"namespace", "model_name"}  # one element
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["metricType"] == "AverageValue"  # KEDA's fallback wants it
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["minReplicaCount"] >= 1


def fired(path: Path) -> Iterator[str]:
    """Yield the alerts that a file of promtool's tests expects to fire."""
    for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
        for case in test.get("promql_expr_test", ()):
            if case["exp_samples"]:
                labels = " ".join(sample["labels"] for sample in case["exp_samples"])
                yield from re.findall(r'alertname="(\w+)"', case["expr"] + labels)
        yield from (case["alertname"] for case in test.get("alert_rule_test", ()) if case["exp_alerts"])


def test_every_alert_says_what_to_do_and_is_seen_to_fire() -> None:
    seen = set(fired(PROMETHEUS / "tests" / "alerts_test.yml"))
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for rule in rules("alert"):
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        link, _, advice = rule["annotations"]["runbook"].partition(" - ")
        heading = link.removeprefix("docs/monitoring.md#")
        assert f"\n### {heading}\n" in page.lower(), rule["alert"]
        assert len(advice) > 20
        assert rule["alert"] in seen


def test_every_panel_has_a_unit_and_says_what_it_shows() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len(panel["description"]) > 20
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "namespace", "model"]


def test_the_components_render_over_a_deployment(tmp_path: Path) -> None:
    kubectl = pytest.importorskip("manifests.kubectl", reason="nothing renders manifests here")
    if kubectl.find_kubectl() is None:
        pytest.skip("there is no kubectl")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "torchserve", "annotations": {"ts-handlers/scaled-by": "nobody"}},
        "spec": {"replicas": 2},
    }
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(deployment), encoding="utf-8")
    components = {name: COMPONENTS / name for name in ("podmonitor", "rules", "grafana", "keda")}
    for name, folder in components.items():
        (tmp_path / name).symlink_to(folder)
    kustomization = {"resources": ["deployment.yaml"], "components": list(components), "namespace": "ts-handlers"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    found = kubectl.render_objects(tmp_path)
    assert set(found) == {
        ("ConfigMap", "torchserve-dashboard"),
        ("Deployment", "torchserve"),
        ("PodMonitor", "torchserve"),
        ("PrometheusRule", "torchserve"),
        ("ScaledObject", "torchserve"),
    }
    assert "replicas" not in found["Deployment", "torchserve"]["spec"]
    dashboard = found["ConfigMap", "torchserve-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {DASHBOARD.name: DASHBOARD.read_text(encoding="utf-8")}
