"""The patches of what scales: thresholds, bounds, and the settings of the worker autoscaler."""

from __future__ import annotations

import math
import re
from typing import Any

from ts_handlers.operate.configure.kubernetes.patch import NAME, Patch, replace, target
from ts_handlers.operate.configure.kubernetes.thresholds import MAX_UTILIZATION
from ts_handlers.operate.configure.kubernetes.workload import Workload
from ts_handlers.operate.memory import JVM_OVERHEAD_MB, worker_mb

AUTOSCALE_NAME = "autoscale.yaml"
_FALLBACK_REASON = "fallback: without Prometheus the pods stay as they are, and these at least."
_AUTOSCALER_PORT = 8083


def hpa(workload: Workload) -> Patch:
    """Return the patch of the HorizontalPodAutoscaler."""
    operations = [
        replace("/spec/minReplicas", workload.min_replicas),
        replace("/spec/maxReplicas", workload.options.max_replicas),
        replace("/spec/metrics/0/containerResource/target/averageUtilization", workload.thresholds.utilization_percent),
    ]
    return Patch("autoscaler.yaml", operations, utilization_reasons(), target("HorizontalPodAutoscaler"))


def utilization_reasons() -> tuple[str, ...]:
    """Return why a CPU utilization is what it is."""
    return (
        "averageUtilization: the share of busy workers at which a request waits as long as it is computed (Erlang's C "
        f"formula for the model with the fewest workers), {MAX_UTILIZATION:.0%} at most.",
    )


def vpa(workload: Workload) -> Patch:
    """Return the patch of the VerticalPodAutoscaler."""
    pod = workload.pod
    least = {"cpu": pod.cpu, "memory": f"{pod.memory_mb}Mi"}
    most = {"cpu": str(4 * max(1, round(workload.plan.cpus))), "memory": f"{4 * pod.memory_mb}Mi"}
    policy = "/spec/resourcePolicy/containerPolicies/0"
    operations = [
        replace("/spec/updatePolicy/minReplicas", max(1, workload.min_replicas)),
        replace(f"{policy}/minAllowed", least),
        replace(f"{policy}/maxAllowed", most),
    ]
    reasons = ("Never less than the workers were planned for; four times as much at most.",)
    return Patch("autoscaler.yaml", operations, reasons, target("VerticalPodAutoscaler"))


def keda(workload: Workload) -> Patch:
    """Return the patch of the ScaledObject."""
    options, least = workload.options, max(1, workload.min_replicas)
    triggers = [trigger for name in workload.thresholds.queue_depth for trigger in _triggers(workload, name)]
    operations = [
        replace("/spec/minReplicaCount", least),
        replace("/spec/maxReplicaCount", options.max_replicas),
        replace("/spec/fallback/replicas", max(2, least)),
        replace("/spec/triggers", triggers),
    ]
    reasons = (
        "queue-depth: as many requests wait in a pod as it has workers.",
        "in-flight: as many requests are in a pod as workers are wanted busy (Erlang's C formula, at most "
        f"{MAX_UTILIZATION:.0%} of them); by the queue alone, which is empty while there are enough, busy pods would be "
        "taken away.",
        _FALLBACK_REASON,
    )
    return Patch("autoscaler.yaml", operations, reasons, target("ScaledObject"))


def _triggers(workload: Workload, model: str) -> list[dict[str, Any]]:
    thresholds, options = workload.thresholds, workload.options
    suffix = f"-{re.sub('[^a-z0-9]+', '-', model.lower())}" if len(thresholds.queue_depth) > 1 else ""
    measured = {
        "queue-depth": ("model:ts_queue_depth:rate1m", thresholds.queue_depth[model]),
        "in-flight": ("model:ts_in_flight:rate1m", thresholds.in_flight[model]),
    }
    return [
        {
            "type": "prometheus",
            "name": f"{name}{suffix}",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": options.prometheus_url,
                "query": f'{metric}{{namespace="{options.namespace}",model_name="{model}"}}',
                "threshold": f"{threshold:g}",
                "ignoreNullValues": "false",
            },
        }
        for name, (metric, threshold) in measured.items()
    ]


def autoscale_settings(workload: Workload) -> Patch:
    """Return the settings of the worker autoscaler, which are a file of the pod and no patch."""
    plan, options = workload.plan, workload.options
    most = workload.most_workers or {}
    models = {}
    for model in plan.models:
        models[model.name] = {
            "min_workers": 1,
            "max_workers": most[model.name],
            "target_in_flight": model.batch_size,
            "cpus_per_worker": max(0.01, round(plan.cpus / plan.num_workers, 2)),
            **({} if model.rss_mb is None else {"memory_per_worker_mb": math.ceil(worker_mb(model.rss_mb))}),
        }
    content = {
        "models": models,
        "budget": {"max_cpus": options.max_cpus, "frontend_memory_mb": plan.heap_mb + JVM_OVERHEAD_MB},
        "kubernetes": {"container": NAME},
        "metrics": {"host": "0.0.0.0", "port": _AUTOSCALER_PORT},  # noqa: S104 (of the pod)
    }
    reasons = (
        "max_workers: what configure plans for the most CPUs, and the pod's memory holds. target_in_flight: a batch.",
        "cpus_per_worker: as in config.properties. memory_per_worker_mb: what the build measured and a margin.",
    )
    return Patch(AUTOSCALE_NAME, content, reasons)
