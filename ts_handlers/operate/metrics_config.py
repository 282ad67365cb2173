"""The metrics.yaml TorchServe needs: its own metrics and the catalogue of the handlers.

A metric that is not named here is dropped. TorchServe matches dimension values by position, so the order of each list
is part of the contract. It adds Hostname to every model metric by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from ts_handlers.hosts.torchserve.metrics import CATALOGUE, MetricSpec

_HOST = ("Level", "Hostname")
_GPU = ("Level", "DeviceId", "Hostname")
_MODEL = ("model_name", "model_version", "hostname")
_WORKER = ("ModelName", "Level")

FRONTEND: tuple[MetricSpec, ...] = (
    MetricSpec("Requests2XX", "counter", "Count", _HOST),
    MetricSpec("Requests4XX", "counter", "Count", _HOST),
    MetricSpec("Requests5XX", "counter", "Count", _HOST),
    MetricSpec("ts_inference_requests_total", "counter", "Count", _MODEL),
    MetricSpec("ts_inference_latency_microseconds", "counter", "Microseconds", _MODEL),
    MetricSpec("ts_queue_latency_microseconds", "counter", "Microseconds", _MODEL),
    MetricSpec("QueueTime", "gauge", "Milliseconds", _HOST),
    MetricSpec("WorkerThreadTime", "gauge", "Milliseconds", _HOST),
    MetricSpec("WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", *_HOST)),
    MetricSpec("CPUUtilization", "gauge", "Percent", _HOST),
    MetricSpec("MemoryUsed", "gauge", "Megabytes", _HOST),
    MetricSpec("MemoryAvailable", "gauge", "Megabytes", _HOST),
    MetricSpec("MemoryUtilization", "gauge", "Percent", _HOST),
    MetricSpec("DiskUsage", "gauge", "Gigabytes", _HOST),
    MetricSpec("DiskAvailable", "gauge", "Gigabytes", _HOST),
    MetricSpec("DiskUtilization", "gauge", "Percent", _HOST),
    MetricSpec("GPUMemoryUsed", "gauge", "Megabytes", _GPU),
    MetricSpec("GPUMemoryUtilization", "gauge", "Percent", _GPU),
    MetricSpec("GPUUtilization", "gauge", "Percent", _GPU),
)
"""What the frontend measures, under the names and dimensions it looks for."""

WORKER: tuple[MetricSpec, ...] = (
    MetricSpec("HandlerTime", "gauge", "ms"),
    MetricSpec("PredictionTime", "gauge", "ms"),
    MetricSpec("ts_handler_preprocess", "gauge", "ms"),
    MetricSpec("ts_handler_inference", "gauge", "ms"),
    MetricSpec("ts_handler_postprocess", "gauge", "ms"),
)
"""What TorchServe measures in every worker (the last three with handler.profile), beside the handlers' own catalogue."""

METRICS_HEADER = """\
# The metrics TorchServe keeps; a metric that is not named here is dropped.
# Generated from ts_handlers.hosts.torchserve.metrics by `ts-handlers configure`: change that, not this file.
"""


def metrics_yaml() -> str:
    """Return the text of metrics.yaml."""
    model_metrics = [
        MetricSpec(spec.name, spec.kind, spec.unit, (*spec.dimensions, *_WORKER)) for spec in (*WORKER, *CATALOGUE)
    ]
    names = dict.fromkeys(name for spec in (*FRONTEND, *model_metrics) for name in spec.dimensions)
    content = {
        "dimensions": list(names),
        "ts_metrics": _by_kind(FRONTEND),
        "model_metrics": _by_kind(model_metrics),
    }
    return METRICS_HEADER + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def _by_kind(metrics: Iterable[MetricSpec]) -> dict[str, list[dict[str, object]]]:
    """Return metrics by their kinds; none is empty, for TorchServe's workers fail on that."""
    found: dict[str, list[dict[str, object]]] = {}
    for spec in metrics:
        entry: dict[str, object] = {"name": spec.name, "unit": spec.unit, "dimensions": list(spec.dimensions)}
        found.setdefault(spec.kind, []).append(entry)
    return found
