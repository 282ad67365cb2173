"""config.properties: what stands in config.properties.template, with the numbers of a plan and the reasons for them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.operate.configure.options import Layout
from ts_handlers.operate.configure.plan import LATENCY_QUEUE_PER_WORKER, MIN_JOB_QUEUE_SIZE, Plan, count_of
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve.properties import Entry

HEADER = "Written by `ts-handlers configure`. Run it again after the models or the CPU limit change."

_TEMPLATE = Path(__file__).with_name("config.properties.template")
_SMALL_JVM_CPUS = 3
_REQUESTS_IN_HEAP = 8
"""Largest requests that fill the heap: each lies there once as it came and once as it goes to the worker."""

_ANSWERS_IN_HEAP = 32
"""Largest answers that fill it: those of a whole batch come at once, and are copied on their way."""


def make_entries(plan: Plan, layout: Layout, launcher: str | None = None) -> list[Entry]:
    """Return every line of config.properties, each with the reason for its value.

    A key of the template, or a line of a reason, that has no value is left out: where there are two reasons, the key is
    there twice, with a value for one of them.

    Args:
        plan: What was decided for models and frontend.
        layout: Addresses and paths.
        launcher: The CPU launcher's arguments, where it was asked for.
    """
    values = {
        **asdict(layout),
        "tokens_off": "true" if layout.disable_token_authorization else "",
        "tokens_on": "" if layout.disable_token_authorization else "false",
        "launcher_off": "" if launcher else "false",
        "launcher_on": "true" if launcher else "",
        "launcher_args": launcher or "",
        **_models(plan),
        **_java(plan),
        **_bodies(plan),
    }
    entries = []
    for block in _TEMPLATE.read_text(encoding="utf-8").strip().split("\n\n"):
        *reasons, line = (Template(part.removeprefix("# ")).substitute(values) for part in block.split("\n"))
        key, _, value = line.partition("=")
        if value:
            entries.append(Entry(key, value, "\n".join(filter(None, reasons))))
    return entries


def _models(plan: Plan) -> dict[str, Any]:
    models: dict[str, dict[str, dict[str, object]]] = {}
    for model in plan.models:
        models.setdefault(model.name, {})[model.archive.version] = {
            "defaultVersion": model.is_default,
            "marName": model.archive.path.name,
            "minWorkers": model.min_workers,
            "maxWorkers": model.max_workers,
            "batchSize": model.batch_size,
            "maxBatchDelay": model.max_batch_delay_ms,
            "responseTimeout": model.response_timeout_s,
            "startupTimeout": model.startup_timeout_s,
        }
    is_latency = plan.options.profile == "latency"
    weights = ", ".join(f"{model.label}: {model.report.weight:g}" for model in plan.models)
    is_weighted = len({model.report.weight for model in plan.models}) > 1
    return {
        "load_models": ",".join(model.archive.path.name for model in plan.models),
        "models": json.dumps(models),
        "profile": plan.options.profile,
        "num_workers": plan.num_workers,
        "budget": f"{plan.gpus} GPUs" if plan.gpus else f"{plan.cpus:g} CPUs",
        "threads": count_of(plan.threads, "thread"),
        "workers_reason": plan.reason,
        "weights_reason": f"Weights: {weights}." if is_weighted else "",
        "batch_reason": "batchSize: small, so that no request waits for others to be computed; with 1, none waits to fill a "
        "batch."
        if is_latency
        else "batchSize: requests a worker takes at once, at most.",
        "fixed_reason": "\n".join(
            f"{model.label}: {', '.join(model.fixed)} as in its model-config.yaml, which wins over this line."
            for model in plan.models
            if model.fixed
        ),
        "latency_queue_size": plan.job_queue_size if is_latency else "",
        "latency_queue_per_worker": LATENCY_QUEUE_PER_WORKER,
        "throughput_queue_size": "" if is_latency else plan.job_queue_size,
        "min_queue_size": MIN_JOB_QUEUE_SIZE,
        "gpus": plan.gpus,
    }


def _java(plan: Plan) -> dict[str, Any]:
    cpus = math.ceil(plan.cpus)
    options, reason = (
        (
            "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "one thread collects it, and code is compiled once and lightly: more of either takes CPUs from the workers",
        )
        if cpus <= _SMALL_JVM_CPUS
        else ("-XX:+UseG1GC", "G1 keeps pauses short")
    )
    return {
        "java_cpus": cpus,
        "java_options": options,
        "java_reason": reason,
        "heap_mb": plan.memory.heap_mb,
        "pool_threads": max(2, cpus),
        "netty_threads": plan.netty_threads,
        "netty_client_threads": plan.netty_client_threads,
    }


def _bodies(plan: Plan) -> dict[str, Any]:
    """Bound a request as the models' limits do, and requests and answers as the frontend's heap does."""
    heap_bytes = plan.memory.heap_mb * MIB
    largest = max(plan.models, key=lambda model: model.largest_request)
    allowed = max(DEFAULT_BODY_BYTES, min(largest.largest_request, heap_bytes // _REQUESTS_IN_HEAP))
    if largest.largest_request <= DEFAULT_BODY_BYTES:
        reason = "TorchServe's own: the models' limits (handler.limits) allow no larger ones."
    elif largest.largest_request <= allowed:
        reason = f"The largest that the limits of {largest.label} (handler.limits in its model-config.yaml) allow."
    else:
        reason = (
            f"The limits of {largest.label} allow {largest.largest_request};\neight of this size fill the frontend's "
            "heap, and larger ones are answered 413. More memory gives a larger heap, up to 1024 MB."
        )
    return {
        "max_request_bytes": allowed,
        "request_reason": reason,
        "max_response_bytes": max(DEFAULT_BODY_BYTES, heap_bytes // _ANSWERS_IN_HEAP),
    }
