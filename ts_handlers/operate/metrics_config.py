"""The metrics.yaml TorchServe needs: its own metrics and the catalogue of the handlers.

A metric that is not named here is dropped. TorchServe matches dimension values by position, so the order of each list
is part of the contract. It adds Hostname to every model metric by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from ts_handlers.metrics import CATALOGUE, Kind, MetricSpec

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
# Generated from ts_handlers.metrics by `ts-handlers configure`: change that, not this file.
"""


def metrics_yaml() -> str:
    """Return the text of metrics.yaml."""
    model_metrics = [
        MetricSpec(spec.name, spec.kind, spec.unit, (*spec.dimensions, *_WORKER)) for spec in (*WORKER, *CATALOGUE)
    ]
    names = dict.fromkeys(name for spec in (*FRONTEND, *model_metrics) for name in spec.dimensions)
    lines = [
        "dimensions:",
        *(f"  - {name}" for name in names),
        "ts_metrics:",
        *_section(FRONTEND),
        "model_metrics:",
        *_section(model_metrics),
    ]
    return METRICS_HEADER + "\n".join(lines) + "\n"


def _section(metrics: Iterable[MetricSpec]) -> Iterator[str]:
    """Yield one block for each kind that has metrics: TorchServe's workers fail on an empty one."""
    metrics = tuple(metrics)
    for kind in get_args(Kind):
        of_kind = [spec for spec in metrics if spec.kind == kind]
        if of_kind:
            yield f"  {kind}:"
        for spec in of_kind:
            yield f"    - name: {spec.name}"
            yield f"      unit: {spec.unit}"
            yield f"      dimensions: [{', '.join(spec.dimensions)}]"
