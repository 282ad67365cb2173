"""What reaches Prometheus: the mode, the metrics.yaml, and the handlers' catalogue in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ts_handlers.hosts.torchserve.metrics import CATALOGUE
from ts_handlers.operate.check.finding import Finding, found
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.torchserve.handler import is_ours

_COMMON = ["ModelName", "Level"]
_REMEDY = "take the metrics.yaml that ts-handlers configure writes"


def check_metrics(server: Server) -> Iterator[Finding]:
    """Check that what is measured arrives."""
    mode = server.values.get("metrics_mode", "not set")
    if "".join(mode.split()).lower() in ("log", "notset") and server.is_true("enable_metrics_api", default=True):
        text = "metrics go to the logs only, and the metrics address has none of them; write metrics_mode=prometheus"
        yield found("warning: metrics_mode", mode, text)
    has_ours = any(is_ours(model.archive) for model in server.loaded)
    is_dropped = has_ours and not server.is_true("model_metrics_auto_detect")
    named, content = server.values.get("metrics_config", ""), server.metrics_file
    if isinstance(content, str):
        yield found("problem: metrics_config", named, f"it cannot be read ({content}): no worker starts; {_REMEDY}")
    elif content is not None:
        yield from _catalogue(named, content, has_ours=has_ours, is_dropped=is_dropped)
    elif is_dropped and not server.is_written("metrics_config"):
        text = f"TorchServe's own list has none of the handlers' metrics, so they are dropped; {_REMEDY}"
        yield found("warning: metrics_config", "not set", text)


def _catalogue(named: str, content: Mapping[str, Any], *, has_ours: bool, is_dropped: bool) -> Iterator[Finding]:
    section = content.get("model_metrics")
    if not isinstance(section, dict) or not section:
        yield found("problem: metrics_config", named, f"it has no model_metrics: no worker starts; {_REMEDY}")
        return
    rows = [row for rows in section.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    dimensions = {str(row.get("name")): row.get("dimensions") for row in rows}
    missing = [spec.name for spec in CATALOGUE if spec.name not in dimensions]
    if missing and is_dropped:
        seen = f"{named} without {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}"
        yield found("warning: metrics_config", seen, f"TorchServe drops metrics it does not name; {_REMEDY}")
    for spec in CATALOGUE if has_ours else ():
        wanted = [*spec.dimensions, *_COMMON]
        if spec.name in dimensions and dimensions[spec.name] != wanted:
            seen = f"{spec.name} with dimensions {dimensions[spec.name]}"
            yield found(
                "warning: metrics_config", seen, f"values are matched by position, and come as {wanted}; {_REMEDY}"
            )
