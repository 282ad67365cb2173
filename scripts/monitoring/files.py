"""Where the monitoring's files are."""

from __future__ import annotations

from pathlib import Path

_CONFIGS = Path(__file__).parents[2] / "configs"
_COMPONENTS = _CONFIGS / "kubernetes" / "components"

RULES = tuple(_CONFIGS / "prometheus" / name for name in ("recording.yml", "alerts.yml"))
"""The rules, as Prometheus reads them; written by hand."""

PROMETHEUS_RULE = _COMPONENTS / "rules" / "prometheusrule.yaml"
"""The same for Prometheus' operator; generated."""

DASHBOARD = _COMPONENTS / "grafana" / "torchserve.json"
"""The dashboard; generated. It is here because kustomize reads no file outside a component's folder."""

SCALED_OBJECT = _COMPONENTS / "keda" / "scaledobject.yaml"
"""KEDA's queries; written by hand."""
