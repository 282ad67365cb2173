"""What an overlay changes: tables of the values of each object, and the reasons for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.kubernetes.pod import SETTLE_S, Pod
from ts_handlers.operate.configure.kubernetes.thresholds import MAX_UTILIZATION, Thresholds
from ts_handlers.operate.configure.plan import Plan, count_of
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN, worker_mb
from ts_handlers.operate.torchserve.process.frontend import STOP_GRACE_S

NAME = "torchserve"
"""Of the Deployment, the InferenceService and what scales them."""

_AUTOSCALER_PORT = 8083
_UTILIZATION_REASON = (
    "averageUtilization: the share of busy workers at which a request waits as long as it is computed (Erlang's C formula "
    f"for the model with the fewest workers), {MAX_UTILIZATION:.0%} at most."
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What an overlay is about.

    Attributes:
        plan: The plan of config.properties.
        pod: What a pod with it needs.
        thresholds: When there are too few pods.
        options: What the operator asked for.
        autoscaler: Who decides about pods.
        min_replicas: Pods at least.
        most_workers: Workers of each model when a pod has grown to its most CPUs; empty where it stays as it is.
    """

    plan: Plan
    pod: Pod
    thresholds: Thresholds
    options: PodOptions
    autoscaler: str
    min_replicas: int
    most_workers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Patch:
    """The changes of one object.

    Attributes:
        kind: The object's kind.
        values: New values by their path; `containers=NAME` is the item of a list that has this name, and 0 the first.
            None: it stays as it is.
        reasons: Why they are what they are, one line each.
        name: The object's name.
    """

    kind: str
    values: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    name: str = NAME


def patches_of(workload: Workload) -> dict[str, Patch]:
    """Return the patches by the names of their files."""
    scaled = {"hpa": _hpa, "vpa": _vpa, "keda": _keda}
    if workload.options.kserve:
        found = {
            "inferenceservice.yaml": _inference_service(workload),
            "servingruntime.yaml": _serving_runtime(workload),
        }
        return found | ({"autoscaler.yaml": _keda(workload)} if workload.autoscaler == "keda" else {})
    found = {"deployment.yaml": _deployment(workload)}
    if workload.autoscaler in scaled:
        found["autoscaler.yaml"] = scaled[workload.autoscaler](workload)
    if workload.options.headroom:
        found["headroom.yaml"] = _headroom(workload)
    return found


def autoscale_settings(workload: Workload) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the settings of the worker autoscaler, a file of the pod, and the reasons for them."""
    plan = workload.plan
    models = {
        model.name: {
            "min_workers": 1,
            "max_workers": workload.most_workers[model.name],
            "target_in_flight": model.batch_size,
            "cpus_per_worker": max(0.01, round(plan.cpus / plan.num_workers, 2)),
            **(
                {}
                if model.report.rss_mb is None
                else {"memory_per_worker_mb": math.ceil(worker_mb(model.report.rss_mb))}
            ),
        }
        for model in plan.models
    }
    settings = {
        "models": models,
        "budget": {"max_cpus": workload.options.max_cpus, "frontend_memory_mb": plan.memory.heap_mb + JVM_OVERHEAD_MB},
        "kubernetes": {"container": NAME},
        "metrics": {"host": "0.0.0.0", "port": _AUTOSCALER_PORT},  # noqa: S104 (of the pod)
    }
    return settings, (
        "max_workers: what configure plans for the most CPUs, and the pod's memory holds. target_in_flight: a batch.",
        "cpus_per_worker: as in config.properties. memory_per_worker_mb: what the build measured and a margin.",
    )


def _deployment(workload: Workload) -> Patch:
    pod, gpus = workload.pod, workload.plan.gpus
    server, volumes = f"spec/template/spec/containers={NAME}", "spec/template/spec/volumes"
    values = {
        "metadata/annotations": {"ts-handlers/device": workload.options.gpu_resource} if gpus else None,
        "spec/replicas": workload.min_replicas if workload.autoscaler in {"none", "vpa"} else None,
        "spec/progressDeadlineSeconds": pod.deadline_s,
        "spec/template/spec/terminationGracePeriodSeconds": pod.grace_s,
        f"{server}/resources": _resources(workload),
        f"{server}/startupProbe/failureThreshold": pod.startup_failures,
        f"{server}/lifecycle": _drain(workload, "/etc/torchserve/config.properties"),
        f"{volumes}=model-store/emptyDir/sizeLimit": f"{pod.model_store_mb}Mi",
        f"{volumes}=run/emptyDir/sizeLimit": f"{pod.run_mb}Mi",
        f"{volumes}=tmp/emptyDir/sizeLimit": f"{pod.scratch_mb}Mi",
    }
    return Patch("Deployment", values, _pod_reasons(workload))


def _headroom(workload: Workload) -> Patch:
    values = {
        "spec/replicas": workload.options.headroom,
        "spec/template/spec/containers=pause/resources": _resources(workload, is_server=False),
    }
    return Patch(
        "Deployment", values, ("As large as a server: what it leaves is enough for one.",), name=f"{NAME}-headroom"
    )


def _inference_service(workload: Workload) -> Patch:
    options, thresholds, pod, autoscaler = workload.options, workload.thresholds, workload.pod, workload.autoscaler
    is_knative, is_scaled = autoscaler == "kpa", autoscaler != "keda"
    drain = _drain(workload, "/mnt/models/config/config.properties")
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    targets = {"kpa": thresholds.concurrency, "hpa": thresholds.utilization_percent}
    values = {
        "spec/predictor/timeout": pod.response_timeout_s,
        "spec/predictor/terminationGracePeriodSeconds": None if is_knative else pod.grace_s,  # Knative allows none
        "spec/predictor/minReplicas": workload.min_replicas if is_scaled else None,
        "spec/predictor/maxReplicas": options.max_replicas if is_scaled else None,
        "spec/predictor/scaleTarget": targets.get(autoscaler),
        "spec/predictor/containerConcurrency": thresholds.concurrency_limit if is_knative else None,
        "spec/predictor/tolerations": [toleration] if workload.plan.gpus else None,
        "spec/predictor/model/resources": _resources(workload),
        "spec/predictor/model/storageUri": options.storage_uri,
        "spec/predictor/model/lifecycle": None if is_knative else drain,
    }
    concurrency_reasons = (
        "scaleTarget: as many requests in a pod as workers are busy where one waits as long as it is computed (Erlang's C "
        "formula, Little's law).",
        "containerConcurrency: two batches for each worker, and not above job_queue_size "
        f"({workload.plan.job_queue_size}): TorchServe never has to refuse.",
    )
    reasons = {"kpa": concurrency_reasons, "hpa": (_UTILIZATION_REASON,)}.get(autoscaler, ())
    return Patch("InferenceService", values, (*_pod_reasons(workload), *reasons))


def _serving_runtime(workload: Workload) -> Patch:
    values = {
        "spec/containers/0/resources": _resources(workload),
        "spec/containers/0/startupProbe/failureThreshold": workload.pod.startup_failures,
        "spec/volumes/0/emptyDir/sizeLimit": f"{workload.pod.run_mb}Mi",
        "spec/volumes/1/emptyDir/sizeLimit": f"{workload.pod.scratch_mb}Mi",
    }
    return Patch("ServingRuntime", values, ("As in inferenceservice.yaml.",), name="ts-handlers")


def _hpa(workload: Workload) -> Patch:
    values = {
        "spec/minReplicas": workload.min_replicas,
        "spec/maxReplicas": workload.options.max_replicas,
        "spec/metrics/0/containerResource/target/averageUtilization": workload.thresholds.utilization_percent,
    }
    return Patch("HorizontalPodAutoscaler", values, (_UTILIZATION_REASON,))


def _vpa(workload: Workload) -> Patch:
    pod, policy = workload.pod, "spec/resourcePolicy/containerPolicies/0"
    most_cpus = 4 * max(1, round(workload.plan.cpus))
    values = {
        "spec/updatePolicy/minReplicas": max(1, workload.min_replicas),
        f"{policy}/minAllowed": {"cpu": pod.cpu, "memory": f"{pod.memory_mb}Mi"},
        f"{policy}/maxAllowed": {"cpu": str(most_cpus), "memory": f"{4 * pod.memory_mb}Mi"},
    }
    reasons = ("Never less than the workers were planned for; four times as much at most.",)
    return Patch("VerticalPodAutoscaler", values, reasons)


def _keda(workload: Workload) -> Patch:
    least = max(1, workload.min_replicas)
    measured = {
        "queue-depth": ("model:ts_queue_depth:rate1m", workload.thresholds.queue_depth),
        "in-flight": ("model:ts_in_flight:rate1m", workload.thresholds.in_flight),
    }
    triggers = [
        _trigger(workload, name, metric, model, thresholds[model])
        for model in workload.thresholds.queue_depth
        for name, (metric, thresholds) in measured.items()
    ]
    values = {
        "spec/minReplicaCount": least,
        "spec/maxReplicaCount": workload.options.max_replicas,
        "spec/fallback/replicas": max(2, least),
        "spec/triggers": triggers,
    }
    reasons = (
        "queue-depth: as many requests wait in a pod as it has workers.",
        "in-flight: as many requests are in a pod as workers are wanted busy (Erlang's C formula, at most "
        f"{MAX_UTILIZATION:.0%} of them); by the queue alone, which is empty while there are enough, busy pods would be "
        "taken away.",
        "fallback: without Prometheus the pods stay as they are, and these at least.",
    )
    return Patch("ScaledObject", values, reasons)


def _trigger(workload: Workload, name: str, metric: str, model: str, threshold: float) -> Mapping[str, Any]:
    is_one = len(workload.thresholds.queue_depth) == 1
    return {
        "type": "prometheus",
        "name": name if is_one else f"{name}-{re.sub('[^a-z0-9]+', '-', model.lower())}",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": workload.options.prometheus_url,
            "query": f'{metric}{{namespace="{workload.options.namespace}",model_name="{model}"}}',
            "threshold": f"{threshold:g}",
            "ignoreNullValues": "false",
        },
    }


def _resources(workload: Workload, *, is_server: bool = True) -> dict[str, dict[str, str]]:
    """Return requests and limits, which are the same."""
    pod, gpus = workload.pod, workload.plan.gpus
    amounts = {
        "cpu": pod.cpu,
        "memory": f"{pod.memory_mb}Mi",
        **({"ephemeral-storage": f"{pod.storage_mb}Mi"} if is_server else {}),
        **({workload.options.gpu_resource: str(gpus)} if gpus else {}),
    }
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _drain(workload: Workload, config: str) -> dict[str, Any]:
    times = [f"--settle-s={SETTLE_S}", f"--timeout-s={workload.pod.drain_timeout_s}"]
    return {"preStop": {"exec": {"command": ["ts-handlers", "drain", f"--config={config}", *times]}}}


def _pod_reasons(workload: Workload) -> tuple[str, ...]:
    plan, pod = workload.plan, workload.pod
    workers = f"{plan.needed_mb:.0f} MiB for workers (what builds measured x {RSS_MARGIN:g})"
    if workload.most_workers:
        workers = f"for {sum(workload.most_workers.values())} workers, the most (what builds measured x {RSS_MARGIN:g})"
    if any(model.report.rss_mb is None for model in plan.models):
        workers = f"{pod.memory_mb} MiB as given, for no build report says what every worker takes"
    return (
        f"cpu: {plan.num_workers} workers, {count_of(plan.threads, 'thread')} each. The limit is what workers divide among "
        "them; the request is the same, so that nobody else is promised those CPUs.",
        f"memory: {workers}; for the frontend {plan.memory.heap_mb} MiB of heap and {JVM_OVERHEAD_MB} more; {HEAD_ROOM:.0%} "
        "are left free.",
        f"ephemeral-storage: archives {pod.model_store_mb} MiB, unpacked {pod.scratch_mb}, logs {pod.run_mb}, and what the "
        "container prints.",
        f"startup: Java and the models may take {pod.startup_failures - 2} probes; before the last `serve` gives up and "
        "says why.",
        f"end: {SETTLE_S} s until nobody sends any more, {pod.response_timeout_s} s for the longest answer, "
        f"{STOP_GRACE_S:.0f} s for TorchServe, and a margin.",
    )
