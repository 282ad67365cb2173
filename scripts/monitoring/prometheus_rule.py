"""configs/prometheus' rules as a PrometheusRule: the same text under a head, so that comments stay."""

from __future__ import annotations

from pathlib import Path

from monitoring.files import RULES

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
    """Return the PrometheusRule's manifest."""
    return _HEAD + "".join(_groups(path) for path in RULES)


def _groups(path: Path) -> str:
    """Return the groups of a file of rules, two spaces further in.

    Raises:
        ValueError: The file has no line that begins its groups.
    """
    _, begin, groups = path.read_text(encoding="utf-8").partition(_GROUPS)
    if not begin:
        raise ValueError(f"{path} has no line {_GROUPS.strip()!r}")
    return "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
