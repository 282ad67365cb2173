"""Write the Grafana dashboard and the PrometheusRule into configs/kubernetes/components; needs grafana-foundation-sdk."""

from __future__ import annotations

from monitoring.dashboard import dashboard_json
from monitoring.files import DASHBOARD, PROMETHEUS_RULE
from monitoring.prometheus_rule import prometheus_rule_yaml

for path, text in ((DASHBOARD, dashboard_json()), (PROMETHEUS_RULE, prometheus_rule_yaml())):
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")
