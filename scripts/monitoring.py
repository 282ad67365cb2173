"""configs/prometheus' rules as a PrometheusRule: `PYTHONPATH=scripts python -m monitoring` writes it. Where files are."""

from __future__ import annotations

from pathlib import Path

_CONFIGS = Path(__file__).parents[1] / "configs"
_COMPONENTS = _CONFIGS / "kubernetes" / "components"

RULES = tuple(_CONFIGS / "prometheus" / name for name in ("recording.yml", "alerts.yml"))
"""The rules, as Prometheus reads them; written by hand."""

PROMETHEUS_RULE = _COMPONENTS / "rules" / "prometheusrule.yaml"
"""The same for Prometheus' operator; generated."""

DASHBOARD = _COMPONENTS / "grafana" / "torchserve.json"
"""The dashboard, as Grafana exports it. It is here because kustomize reads no file outside a component's folder."""

SCALED_OBJECT = _COMPONENTS / "keda" / "scaledobject.yaml"
"""KEDA's queries; written by hand."""

_GROUPS = "groups:\n"
_HEAD = """\
# Generated from configs/prometheus by `PYTHONPATH=scripts python -m monitoring`: change those files, not this one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: torchserve
  labels:
    app.kubernetes.io/name: torchserve
    app.kubernetes.io/part-of: ts-handlers
spec:
  groups:
"""


def prometheus_rule_yaml() -> str:
    """Return the PrometheusRule's manifest: the same text under a head, two spaces further in, so that comments stay.

    Raises:
        ValueError: A file of rules has no line that begins its groups.
    """
    parts = [_HEAD]
    for path in RULES:
        _, begin, groups = path.read_text(encoding="utf-8").partition(_GROUPS)
        if not begin:
            raise ValueError(f"{path} has no line {_GROUPS.strip()!r}")
        parts += [f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True)]
    return "".join(parts)


if __name__ == "__main__":
    PROMETHEUS_RULE.write_text(prometheus_rule_yaml(), encoding="utf-8")
    print(f"wrote {PROMETHEUS_RULE}")
