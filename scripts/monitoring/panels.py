"""What the dashboard shows: rows of panels, each with its queries, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass

_MODEL = '{namespace=~"$namespace",model_name=~"$model"}'
_WORKER = '{namespace=~"$namespace",ModelName=~"$model"}'
_NAMESPACE = '{namespace=~"$namespace"}'
_CONTAINER = 'namespace=~"$namespace",container="torchserve"'
_NAMES = "{{namespace}} {{model_name}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        description: What it shows, and what it does not.
        unit: Grafana's name of the unit.
        queries: (PromQL, legend) of each.
        width: Of 24 columns.
    """

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8


def _mean_seconds(stage: str) -> tuple[str, str]:
    """Return the query of a stage's mean seconds a batch; a ratio, so that sampling does not show in it."""
    sums, counts = (
        f"sum by (namespace, ModelName) (rate(ts_handlers_{stage}_seconds_{part}{_WORKER}[$__rate_interval]))"
        for part in ("sum", "count")
    )
    return f"{sums} / ({counts} > 0)", f"{{{{namespace}}}} {{{{ModelName}}}} {stage}"


_TRAFFIC = (
    Panel(
        "Requests",
        "Requests that arrive, each second. Those that get a 503 are among them.",
        "reqps",
        ((f"model:ts_requests:rate1m{_MODEL}", _NAMES),),
    ),
    Panel(
        "Errors by class",
        "4xx and 5xx answers over HTTP, each second: of all models, of management, and of what asks for no model. "
        "gRPC's are not counted.",
        "reqps",
        tuple(
            (f"sum by (namespace) (rate(Requests{code}{_NAMESPACE}[$__rate_interval]))", f"{{{{namespace}}}} {name}")
            for code, name in (("4XX", "4xx"), ("5XX", "5xx"))
        ),
    ),
    Panel(
        "Error share",
        "5xx answers as a share of the requests that arrived. None while nothing arrives.",
        "percentunit",
        ((f"namespace:ts_error_share:rate5m{_NAMESPACE}", "{{namespace}}"),),
    ),
)

_QUEUE = (
    Panel(
        "Queue depth",
        "Requests that wait, on average over a minute (Little's law). It moves when requests are answered: it lags by "
        "their wait, and is 0 while everything hangs.",
        "short",
        ((f"model:ts_queue_depth:rate1m{_MODEL}", _NAMES),),
    ),
    Panel(
        "In flight",
        "Requests that wait or are computed, on average over a minute (Little's law).",
        "short",
        ((f"model:ts_in_flight:rate1m{_MODEL}", _NAMES),),
    ),
    Panel(
        "Mean time of a request",
        "From arrival to answer, and the part of it in the queue. Too short while there are 503s, which count as requests "
        "and take no time.",
        "s",
        (
            (f"model:ts_request_seconds:mean5m{_MODEL}", f"{_NAMES} in all"),
            (f"model:ts_queue_seconds:mean5m{_MODEL}", f"{_NAMES} in the queue"),
        ),
    ),
    Panel(
        "Time of a batch",
        "Percentiles of the time in the handler, without the queue. TorchServe's buckets are 5 ms to 10 s: below 5 ms it "
        "is a guess, above 10 s it stays there.",
        "s",
        tuple((f"model:ts_batch_seconds:p{rank}_5m{_MODEL}", f"{_NAMES} p{rank}") for rank in (50, 95, 99)),
        width=12,
    ),
    Panel(
        "Stages of a batch",
        "Mean time of a batch in each stage of the handler.",
        "s",
        tuple(_mean_seconds(stage) for stage in ("decode", "transform", "run", "format")),
        width=12,
    ),
)

_BATCHES = (
    Panel(
        "Batch fill",
        "Requests of a batch as a share of batchSize.",
        "percentunit",
        ((f"model:ts_batch_fill:rate5m{_MODEL}", _NAMES),),
    ),
    Panel(
        "Padding",
        "Padding as a share of the tokens that are computed.",
        "percentunit",
        ((f"model:ts_padded_token_share:rate5m{_MODEL}", _NAMES),),
    ),
    Panel(
        "Rejected requests",
        "Requests that the handler answers with an error of their own, each second, by its code.",
        "reqps",
        ((f"model:ts_rejected_rows:rate5m{_MODEL}", f"{_NAMES} {{{{Code}}}}"),),
    ),
)

_PODS = (
    Panel(
        "Pods and workers",
        "Servers that answer Prometheus, and workers that have loaded in them. A worker that was scaled away still counts "
        "until its pod ends.",
        "short",
        (
            ('count by (namespace) (up{job="torchserve",namespace=~"$namespace"} == 1)', "{{namespace}} pods"),
            (f"model:ts_workers_loaded:count{_MODEL}", f"{_NAMES} workers"),
        ),
    ),
    Panel(
        "Workers loaded again",
        "How often workers died and were loaded again, within 15 minutes.",
        "short",
        ((f"sum by (namespace, instance) (changes(WorkerLoadTime{_NAMESPACE}[15m]))", "{{namespace}} {{instance}}"),),
    ),
    Panel(
        "CPU",
        "CPUs that containers use, and their limit. From the kubelet and kube-state-metrics; TorchServe's CPUUtilization "
        "is the node's.",
        "short",
        (
            (
                f"sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{{_CONTAINER}}}[$__rate_interval]))",
                "{{pod}}",
            ),
            (
                f'max by (namespace) (kube_pod_container_resource_limits{{{_CONTAINER},resource="cpu"}})',
                "{{namespace}} limit",
            ),
        ),
    ),
    Panel(
        "CPU throttling",
        "Share of the periods in which the kernel stopped the container at its CPU limit. From the kubelet.",
        "percentunit",
        (
            (
                "sum by (namespace, pod) "
                f"(rate(container_cpu_cfs_throttled_periods_total{{{_CONTAINER}}}[$__rate_interval])) / "
                "(sum by (namespace, pod) "
                f"(rate(container_cpu_cfs_periods_total{{{_CONTAINER}}}[$__rate_interval])) > 0)",
                "{{pod}}",
            ),
        ),
    ),
    Panel(
        "Memory",
        "Memory that containers cannot give back, and their limit. From the kubelet and kube-state-metrics; TorchServe's "
        "MemoryUsed is the node's.",
        "bytes",
        (
            (f"max by (namespace, pod) (container_memory_working_set_bytes{{{_CONTAINER}}})", "{{pod}}"),
            (
                f'max by (namespace) (kube_pod_container_resource_limits{{{_CONTAINER},resource="memory"}})',
                "{{namespace}} limit",
            ),
        ),
    ),
    Panel(
        "GPU",
        "Use of each GPU, as nvidia-smi says it, once a minute. None without GPUs.",
        "percent",
        ((f"max by (namespace, instance, DeviceId) (GPUUtilization{_NAMESPACE})", "{{instance}} GPU {{DeviceId}}"),),
    ),
)

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("Traffic", _TRAFFIC),
    ("Queue and latency", _QUEUE),
    ("Batches", _BATCHES),
    ("Pods", _PODS),
)
"""(title, panels) of each row."""
