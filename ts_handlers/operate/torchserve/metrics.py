"""TorchServe's own metrics, read from Prometheus' text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_WORKER_NAME = re.compile(r"W-(?P<port>\d+)-(?P<model>.*)_[^_]*")


@dataclass(frozen=True, slots=True)
class Counters:
    """What the metrics have counted since the server started.

    Attributes:
        requests: Requests of each model, refused ones included.
        latency_s: Summed seconds from arrival to answer, by model.
        queue_s: Summed seconds in the queue, by model.
        failures: Answers 5xx of the whole server.
        load_time_s: How long the newest worker of each model took to load.
    """

    requests: Mapping[str, float]
    latency_s: Mapping[str, float]
    queue_s: Mapping[str, float]
    failures: float
    load_time_s: Mapping[str, float]


def parse_counters(text: str) -> Counters:
    """Read TorchServe's metrics.

    Raises:
        ValueError: They are not in Prometheus' text format.
    """
    requests: dict[str, float] = {}
    latency_s: dict[str, float] = {}
    queue_s: dict[str, float] = {}
    newest: dict[str, tuple[int, float]] = {}
    failures = 0.0
    sums = {
        "ts_inference_requests_total": (requests, 1.0),  # the parser gives every counter this suffix
        "ts_inference_latency_microseconds_total": (latency_s, 1e-6),
        "ts_queue_latency_microseconds_total": (queue_s, 1e-6),
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in sums:
                totals, unit = sums[sample.name]
                model = sample.labels.get("model_name", "")
                totals[model] = totals.get(model, 0.0) + sample.value * unit
            elif sample.name == "Requests5XX_total":
                failures += sample.value
            elif sample.name == "WorkerLoadTime":
                match = _WORKER_NAME.fullmatch(sample.labels.get("WorkerName", ""))
                if match:
                    latest = (int(match["port"]), sample.value / 1000)
                    newest[match["model"]] = max(newest.get(match["model"], latest), latest)
    load_time_s = {model: seconds for model, (_, seconds) in newest.items()}
    return Counters(requests, latency_s, queue_s, failures, load_time_s)
