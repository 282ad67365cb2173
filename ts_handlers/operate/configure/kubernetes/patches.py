"""The patches of an overlay: each puts the numbers of one object in the place of the example's."""

from __future__ import annotations

from typing import Any

from ts_handlers.operate.configure.kubernetes.patch import NAME, Patch, replace
from ts_handlers.operate.configure.kubernetes.pod import SETTLE_S
from ts_handlers.operate.configure.kubernetes.scaling import hpa, keda, utilization_reasons, vpa
from ts_handlers.operate.configure.kubernetes.workload import Workload
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN
from ts_handlers.operate.torchserve.process.frontend import STOP_GRACE_S

RUNTIME = "ts-handlers"


def of_deployment(workload: Workload) -> list[Patch]:
    """Return the patches for servers that are a Deployment of ours."""
    scaling = {"hpa": hpa, "vpa": vpa, "keda": keda}
    return [
        _deployment(workload),
        *([scaling[workload.autoscaler](workload)] if workload.autoscaler in scaling else []),
        *([_headroom(workload)] if workload.options.headroom else []),
    ]


def of_kserve(workload: Workload) -> list[Patch]:
    """Return the patches for servers that KServe runs."""
    return [
        _inference_service(workload),
        _serving_runtime(workload),
        *([keda(workload)] if workload.autoscaler == "keda" else []),
    ]


def resources(workload: Workload, *, only_compute: bool = False) -> dict[str, dict[str, str]]:
    """Return requests and limits of a server, which are the same."""
    pod, gpus = workload.pod, workload.plan.gpus
    amounts = {"cpu": pod.cpu, "memory": f"{pod.memory_mb}Mi"}
    if not only_compute:
        amounts["ephemeral-storage"] = f"{pod.storage_mb}Mi"
    if gpus:
        amounts[workload.options.gpu_resource] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _deployment(workload: Workload) -> Patch:
    pod = workload.pod
    container = {
        "name": NAME,
        "resources": resources(workload),
        "startupProbe": {"failureThreshold": pod.startup_failures},
        "lifecycle": _drain(workload, "/etc/torchserve/config.properties"),
    }
    sizes = {"model-store": pod.model_store_mb, "run": pod.run_mb, "tmp": pod.scratch_mb}
    spec = {
        "terminationGracePeriodSeconds": pod.grace_s,
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": f"{size}Mi"}} for name, size in sizes.items()],
    }
    replicas = {"replicas": workload.min_replicas} if workload.autoscaler in {"none", "vpa"} else {}
    device = {"annotations": {"ts-handlers/device": workload.options.gpu_resource}} if workload.plan.gpus else {}
    content = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, **device},
        "spec": {**replicas, "progressDeadlineSeconds": pod.deadline_s, "template": {"spec": spec}},
    }
    return Patch("deployment.yaml", content, _pod_reasons(workload))


def _drain(workload: Workload, config: str) -> dict[str, Any]:
    times = [f"--settle-s={SETTLE_S}", f"--timeout-s={workload.pod.drain_timeout_s}"]
    return {"preStop": {"exec": {"command": ["ts-handlers", "drain", f"--config={config}", *times]}}}


def _pod_reasons(workload: Workload) -> tuple[str, ...]:
    plan, pod = workload.plan, workload.pod
    threads = "1 thread" if plan.workers.threads == 1 else f"{plan.workers.threads} threads"
    workers = f"{plan.workers.needed_mb:.0f} MiB for workers (what builds measured x {RSS_MARGIN:g})"
    if workload.most_workers:
        workers = f"for {sum(workload.most_workers.values())} workers, the most (what builds measured x {RSS_MARGIN:g})"
    if any(model.rss_mb is None for model in plan.models):
        workers = f"{pod.memory_mb} MiB as given, for no build report says what every worker takes"
    return (
        f"cpu: {plan.num_workers} workers, {threads} each. The limit is what workers divide among them; the request is the "
        "same, so that nobody else is promised those CPUs.",
        f"memory: {workers}; for the frontend {plan.heap_mb} MiB of heap and {JVM_OVERHEAD_MB} more; {HEAD_ROOM:.0%} are "
        "left free.",
        f"ephemeral-storage: archives {pod.model_store_mb} MiB, unpacked {pod.scratch_mb}, logs {pod.run_mb}, and what the "
        "container prints.",
        f"startup: Java and the models may take {pod.startup_failures - 2} probes; before the last `serve` gives up and "
        "says why.",
        f"end: {SETTLE_S} s until nobody sends any more, {pod.response_timeout_s} s for the longest answer, "
        f"{STOP_GRACE_S:.0f} s for TorchServe, and a margin.",
    )


def _headroom(workload: Workload) -> Patch:
    container = {"name": "pause", "resources": resources(workload, only_compute=True)}
    content = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{NAME}-headroom"},
        "spec": {"replicas": workload.options.headroom, "template": {"spec": {"containers": [container]}}},
    }
    return Patch("headroom.yaml", content, ("As large as a server: what it leaves is enough for one.",))


def _inference_service(workload: Workload) -> Patch:
    options, thresholds, pod = workload.options, workload.thresholds, workload.pod
    predictor: dict[str, Any] = {"timeout": pod.response_timeout_s}
    model: dict[str, Any] = {"resources": resources(workload)}
    if options.storage_uri is not None:
        model["storageUri"] = options.storage_uri
    if workload.autoscaler == "kpa":
        predictor |= {
            "minReplicas": workload.min_replicas,
            "maxReplicas": options.max_replicas,
            "scaleTarget": thresholds.concurrency,
            "containerConcurrency": thresholds.concurrency_limit,
        }
    else:
        predictor["terminationGracePeriodSeconds"] = pod.grace_s
        model["lifecycle"] = _drain(workload, "/mnt/models/config/config.properties")
    if workload.autoscaler == "hpa":
        predictor |= {
            "minReplicas": workload.min_replicas,
            "maxReplicas": options.max_replicas,
            "scaleTarget": thresholds.utilization_percent,
        }
    if workload.plan.gpus:
        predictor["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    content = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": NAME},
        "spec": {"predictor": {**predictor, "model": model}},
    }
    return Patch("inferenceservice.yaml", content, (*_pod_reasons(workload), *_kserve_reasons(workload)))


def _kserve_reasons(workload: Workload) -> tuple[str, ...]:
    if workload.autoscaler == "hpa":
        return utilization_reasons()
    if workload.autoscaler == "keda":
        return ()
    return (
        "scaleTarget: as many requests in a pod as workers are busy where one waits as long as it is computed (Erlang's C "
        "formula, Little's law).",
        "containerConcurrency: two batches for each worker, and not above job_queue_size "
        f"({workload.plan.job_queue_size}): TorchServe never has to refuse.",
    )


def _serving_runtime(workload: Workload) -> Patch:
    pod = workload.pod
    operations = [
        replace("/spec/containers/0/resources", resources(workload)),
        replace("/spec/containers/0/startupProbe/failureThreshold", pod.startup_failures),
        replace("/spec/volumes/0/emptyDir/sizeLimit", f"{pod.run_mb}Mi"),
        replace("/spec/volumes/1/emptyDir/sizeLimit", f"{pod.scratch_mb}Mi"),
    ]
    target = {"kind": "ServingRuntime", "name": RUNTIME}
    return Patch("servingruntime.yaml", operations, ("As in inferenceservice.yaml.",), target)
