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
    """Return every line of config.properties, each with the reason for its value; what has no value is left out.

    Args:
        plan: What was decided for models and frontend.
        layout: Addresses and paths.
        launcher: The CPU launcher's arguments, where it was asked for.
    """
    values = {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in (
            asdict(layout) | _models(plan) | _launcher(launcher) | _java(plan) | _bodies(plan) | _access(layout)
        ).items()
    }
    entries = []
    for block in _TEMPLATE.read_text(encoding="utf-8").strip().split("\n\n"):
        *comment, line = (Template(part.removeprefix("# ")).substitute(values) for part in block.split("\n"))
        key, _, value = line.partition("=")
        if value:
            entries.append(Entry(key, value, "\n".join(comment)))
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
    queue_reason = (
        f"Requests that may wait for one model: {LATENCY_QUEUE_PER_WORKER} batches for each worker. More are answered\n"
        "503 at once: refused early is better than answered too late."
        if plan.options.profile == "latency"
        else f"Requests that may wait for one model: two batches for each worker, at least {MIN_JOB_QUEUE_SIZE}.\n"
        "More are answered 503."
    )
    return {
        "load_models": ",".join(model.archive.path.name for model in plan.models),
        "models": json.dumps(models),
        "models_reason": _models_reason(plan),
        "job_queue_size": plan.job_queue_size,
        "queue_reason": queue_reason,
        "gpus": plan.gpus,
    }


def _models_reason(plan: Plan) -> str:
    profile = plan.options.profile
    budget = f"{plan.gpus} GPUs" if plan.gpus else f"{plan.cpus:g} CPUs"
    weights = ", ".join(f"{model.label}: {model.report.weight:g}" for model in plan.models)
    is_weighted = len({model.report.weight for model in plan.models}) > 1
    return "\n".join(
        [
            f"Profile {profile}. Workers: {plan.num_workers} on {budget}, {count_of(plan.threads, 'thread')} each.",
            plan.reason,
            *([f"Weights: {weights}."] if is_weighted else []),
            "batchSize: requests a worker takes at once, at most."
            if profile == "throughput"
            else "batchSize: small, so that no request waits for others to be computed; with 1, none waits to fill a batch.",
            "maxBatchDelay: ms a worker waits for its batch to fill; 1 is the least, for TorchServe makes 100 of 0.",
            "maxWorkers is minWorkers: TorchServe never starts more by itself. Timeouts are in seconds: a worker that takes",
            "longer to answer a batch, or to load, is killed and started again.",
            *(
                f"{model.label}: {', '.join(model.fixed)} as in its model-config.yaml, which wins over this line."
                for model in plan.models
                if model.fixed
            ),
        ]
    )


def _launcher(launcher: str | None) -> dict[str, Any]:
    reason = (
        "Handlers limit their threads and pin themselves; the launcher counts cores, not the quota."
        if launcher is None
        else "As asked for with --launcher. It binds each worker to CPUs of its own, with numactl where that works and "
        "with\ntaskset elsewhere; the handlers leave that as it is. TorchServe adds --ninstances and --rank, tries it with\n"
        "the `python` of PATH, and goes on without it when that fails.\n"
        "Changing the number of workers restarts all of them."
    )
    return {"is_launched": launcher is not None, "launcher": launcher or "", "launcher_reason": reason}


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


def _access(layout: Layout) -> dict[str, Any]:
    reason = (
        "Whoever reaches the inference address is served: tokens differ from server to server, so that clients of\n"
        "several would need all of them. A gateway or a network policy decides who comes in."
        if layout.disable_token_authorization
        else "Clients send a token of key_file.json, in the folder the server runs in."
    )
    return {"token_reason": reason}
