"""What an overlay is about, and the values that its templates name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ts_handlers.build.report import BuildReport
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.kubernetes.pod import SETTLE_S, memory_for, pod_of
from ts_handlers.operate.configure.kubernetes.thresholds import MAX_UTILIZATION, Thresholds, thresholds_of
from ts_handlers.operate.configure.options import MachineOptions, Options
from ts_handlers.operate.configure.plan import Plan, count_of, make_plan
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, MIB, RSS_MARGIN, worker_mb
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.process.frontend import STOP_GRACE_S

NAME = "torchserve"
"""Of the Deployment, the InferenceService and what scales them."""

_UTILIZATION_REASON = (
    "averageUtilization: the share of busy workers at which a request waits as long as it is computed (Erlang's C formula "
    f"for the model with the fewest workers), {MAX_UTILIZATION:.0%} at most."
)
_DEFAULT_CPUS = 2
"""CPUs of a pod where nobody says: small pods follow the load closely, and with two workers one can fail."""

_UNBOUNDED_MB = 2**40
_METRICS = {"queue-depth": "model:ts_queue_depth:rate1m", "in-flight": "model:ts_in_flight:rate1m"}


@dataclass(frozen=True, slots=True)
class Workload:
    """What an overlay is about.

    Attributes:
        plan: The plan of config.properties.
        pod: What a pod with it needs, by the names that `pod_of` gives.
        thresholds: When there are too few pods.
        options: What the operator asked for.
        autoscaler: Who decides about pods.
        min_replicas: Pods at least.
        most_workers: Workers of each model when a pod has grown to its most CPUs; empty where it stays as it is.
    """

    plan: Plan
    pod: Mapping[str, Any]
    thresholds: Thresholds
    options: PodOptions
    autoscaler: str
    min_replicas: int
    most_workers: Mapping[str, int]


def plan_workload(
    archives: Sequence[Archive],
    reports: Mapping[tuple[str, str], BuildReport],
    machine: MachineOptions,
    wanted: Options,
    options: PodOptions,
) -> Workload:
    """Plan the pods of these models.

    The memory of a pod that may grow is for the workers it has then, for it cannot change while it runs.

    Raises:
        OperatorError: The memory is not given and no report says what a worker needs, the workers do not fit, or options
            contradict one another.
    """

    def plan_for(cpus: float, memory_mb: int) -> Plan:
        return make_plan(archives, cpus, wanted, memory_bytes=memory_mb * MIB, reports=reports)

    max_cpus = options.max_cpus
    cpus = float(max(_DEFAULT_CPUS, len(archives) * max(1, wanted.gpus))) if machine.cpus is None else machine.cpus
    if max_cpus is not None and max_cpus < cpus:
        raise OperatorError(f"--max-cpus {max_cpus:g} is less than the {cpus:g} CPUs a pod starts with; give more")
    plan = plan_for(cpus, machine.memory_mb or memory_for(plan_for(max_cpus or cpus, _UNBOUNDED_MB)))
    pod = pod_of(plan)
    most: dict[str, int] = {}
    if max_cpus is not None:
        most = {model.name: model.min_workers for model in plan_for(max_cpus, pod["memory_mb"]).models}
        if len(most) < len(plan.models):
            raise OperatorError(
                "--max-cpus with several versions of one model: workers are scaled by name; serve one version"
            )
    autoscaler = options.autoscaler or ("kpa" if options.kserve else "keda" if plan.gpus or most else "hpa")
    least = 0 if autoscaler == "kpa" else min(2, options.max_replicas)
    min_replicas = least if options.min_replicas is None else options.min_replicas
    if min_replicas == 0 and autoscaler != "kpa":
        raise OperatorError(
            f"--min-replicas 0 with --autoscaler {autoscaler}: nothing wakes the first pod; give 1 or more"
        )
    return Workload(plan, pod, thresholds_of(plan, most), options, autoscaler, min_replicas, most)


def values_of(workload: Workload) -> dict[str, Any]:
    """Return what the templates name; None: the object keeps what it has."""
    plan, pod, options, thresholds = workload.plan, workload.pod, workload.options, workload.thresholds
    least_replicas = max(1, workload.min_replicas)
    folder = "/mnt/models/config" if options.kserve else "/etc/torchserve"
    drain = ["ts-handlers", "drain", f"--config={folder}/config.properties", f"--settle-s={SETTLE_S}"]
    drain.append(f"--timeout-s={pod['drain_timeout_s']}")
    amounts = {"cpu": pod["cpu"], "memory": f"{pod['memory_mb']}Mi"}
    disk = {"ephemeral-storage": f"{pod['storage_mb']}Mi"}
    devices = {options.gpu_resource: str(plan.gpus)} if plan.gpus else {}
    return {
        **pod,
        "pod_reasons": "\n".join(_pod_reasons(workload)),
        "resources": _same({**amounts, **disk, **devices}),
        "pause_resources": _same({**amounts, **devices}),
        "lifecycle": {"preStop": {"exec": {"command": drain}}},
        "namespace": options.namespace,
        "device": options.gpu_resource if plan.gpus else None,
        "replicas": workload.min_replicas if workload.autoscaler in {"none", "vpa"} else None,
        "headroom": options.headroom,
        "min_replicas": workload.min_replicas,
        "max_replicas": options.max_replicas,
        "least_replicas": least_replicas,
        "fallback_replicas": max(2, least_replicas),
        "utilization_percent": thresholds.utilization_percent,
        "utilization_reason": _UTILIZATION_REASON,
        "max_utilization": f"{MAX_UTILIZATION:.0%}",
        "most_cpu": str(4 * max(1, round(plan.cpus))),
        "most_memory_mb": 4 * pod["memory_mb"],
        "triggers": list(_triggers(workload)),
        "scaled_models": dict(_scaled_models(workload)),
        "max_cpus": options.max_cpus,
        "frontend_mb": plan.memory.heap_mb + JVM_OVERHEAD_MB,
        **(_kserve_values(workload) if options.kserve else {}),
    }


def _kserve_values(workload: Workload) -> dict[str, Any]:
    thresholds, autoscaler = workload.thresholds, workload.autoscaler
    is_scaled = autoscaler != "keda"
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    values = {
        "kserve_min_replicas": workload.min_replicas if is_scaled else None,
        "kserve_max_replicas": workload.options.max_replicas if is_scaled else None,
        "kserve_reasons": _UTILIZATION_REASON if autoscaler == "hpa" else "",
        "scale_target": thresholds.utilization_percent if autoscaler == "hpa" else None,
        "container_concurrency": None,
        "tolerations": [toleration] if workload.plan.gpus else None,
        "storage_uri": workload.options.storage_uri,
    }
    if autoscaler != "kpa":
        return values
    return values | {
        "kserve_reasons": "scaleTarget: as many requests in a pod as workers are busy where one waits as long as it is "
        "computed (Erlang's C formula, Little's law).\n"
        "containerConcurrency: two batches for each worker, and not above job_queue_size "
        f"({workload.plan.job_queue_size}): TorchServe never has to refuse.",
        "scale_target": thresholds.concurrency,
        "container_concurrency": thresholds.concurrency_limit,
        "lifecycle": None,  # Knative allows neither
        "grace_s": None,
    }


def _same(amounts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return requests and limits, which are the same."""
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _triggers(workload: Workload) -> Iterator[Mapping[str, Any]]:
    """Yield KEDA's, two for each model."""
    options, thresholds = workload.options, workload.thresholds
    for model, depth in thresholds.queue_depth.items():
        suffix = "" if len(thresholds.queue_depth) == 1 else f"-{re.sub('[^a-z0-9]+', '-', model.lower())}"
        for name, threshold in (("queue-depth", depth), ("in-flight", thresholds.in_flight[model])):
            yield {
                "type": "prometheus",
                "name": f"{name}{suffix}",
                "metricType": "AverageValue",
                "metadata": {
                    "serverAddress": options.prometheus_url,
                    "query": f'{_METRICS[name]}{{namespace="{options.namespace}",model_name="{model}"}}',
                    "threshold": f"{threshold:g}",
                    "ignoreNullValues": "false",
                },
            }


def _scaled_models(workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the worker autoscaler, which is in the pod, may do with each model."""
    plan, most = workload.plan, workload.most_workers
    for model in plan.models if most else ():
        rss_mb = model.report.rss_mb
        yield (
            model.name,
            {
                "min_workers": 1,
                "max_workers": most[model.name],
                "target_in_flight": model.batch_size,
                "cpus_per_worker": max(0.01, round(plan.cpus / plan.num_workers, 2)),
                **({} if rss_mb is None else {"memory_per_worker_mb": math.ceil(worker_mb(rss_mb))}),
            },
        )


def _pod_reasons(workload: Workload) -> tuple[str, ...]:
    plan, pod = workload.plan, workload.pod
    workers = f"{plan.needed_mb:.0f} MiB for workers (what builds measured x {RSS_MARGIN:g})"
    if workload.most_workers:
        workers = f"for {sum(workload.most_workers.values())} workers, the most (what builds measured x {RSS_MARGIN:g})"
    if any(model.report.rss_mb is None for model in plan.models):
        workers = f"{pod['memory_mb']} MiB as given, for no build report says what every worker takes"
    return (
        f"cpu: {plan.num_workers} workers, {count_of(plan.threads, 'thread')} each. The limit is what workers divide among "
        "them; the request is the same, so that nobody else is promised those CPUs.",
        f"memory: {workers}; for the frontend {plan.memory.heap_mb} MiB of heap and {JVM_OVERHEAD_MB} more; {HEAD_ROOM:.0%} "
        "are left free.",
        f"ephemeral-storage: archives {pod['model_store_mb']} MiB, unpacked {pod['scratch_mb']}, logs {pod['run_mb']}, and "
        "what the container prints.",
        f"startup: Java and the models may take {pod['startup_failures'] - 2} probes; before the last `serve` gives up and "
        "says why.",
        f"end: {SETTLE_S} s until nobody sends any more, {pod['response_timeout_s']} s for the longest answer, "
        f"{STOP_GRACE_S:.0f} s for TorchServe, and a margin.",
    )
