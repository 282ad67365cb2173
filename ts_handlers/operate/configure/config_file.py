"""What stands in config.properties, line by line, each with the reason for its value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.operate.arguments import host, option, port, whole
from ts_handlers.operate.configure.plan import LATENCY_QUEUE_PER_WORKER, MIN_JOB_QUEUE_SIZE, Plan
from ts_handlers.operate.torchserve.properties import Entry

HEADER = "Written by `ts-handlers configure`. Run it again after the models or the CPU limit change."
NO_URL = "(?!)"
"""A pattern nothing matches. TorchServe takes a plain file name from the model store without asking `allowed_urls`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the server listens and finds its files; a field that is an option says what it is.

    Attributes:
        model_store: Folder of the .mar files, absolute.
        metrics_config: The metrics.yaml, absolute.
    """

    model_store: Path
    metrics_config: Path
    inference_host: str = option("127.0.0.1", "address of inference", "ADDRESS", host)
    inference_port: int = option(8080, "HTTP port of inference", "PORT", port)
    management_host: str = option("127.0.0.1", "address of management", "ADDRESS", host)
    management_port: int = option(8081, "HTTP port of management", "PORT", port)
    metrics_host: str = option("127.0.0.1", "address of Prometheus metrics", "ADDRESS", host)
    metrics_port: int = option(8082, "HTTP port of Prometheus metrics", "PORT", port)
    grpc_inference_port: int = option(7070, "gRPC port of inference", "PORT", port)
    grpc_management_port: int = option(7071, "gRPC port of management", "PORT", port)
    initial_worker_port: int = option(9000, "number of the first worker's socket, .ts.sock.N", "PORT", port)
    token_expiration_min: int = option(60, "minutes until a token must be renewed", "MIN", whole(1, 366 * 24 * 60))
    disable_token_authorization: bool = option(False, "serve clients without a token")


def make_entries(plan: Plan, layout: Layout, launcher: str | None = None) -> list[Entry]:
    """Return every line of config.properties, each with the reason for its value.

    Args:
        plan: What was decided for models and frontend.
        layout: Addresses and paths.
        launcher: The CPU launcher's arguments, where it was asked for.
    """
    rows = (
        *_model_rows(plan, layout),
        *_launcher_rows(launcher),
        *_frontend_rows(plan),
        *_body_rows(plan),
        *_address_rows(layout),
        *_access_rows(layout),
        *_metrics_rows(layout),
    )
    return [
        Entry(key, str(value).lower() if isinstance(value, bool) else str(value), comment)
        for key, value, comment in rows
    ]


_Rows = Iterator[tuple[str, object, str]]


def _model_rows(plan: Plan, layout: Layout) -> _Rows:
    models: dict[str, dict[str, dict[str, object]]] = {}
    for model in plan.models:
        models.setdefault(model.name, {})[model.version] = {
            "defaultVersion": model.is_default,
            "marName": model.archive.path.name,
            "minWorkers": model.min_workers,
            "maxWorkers": model.max_workers,
            "batchSize": model.batch_size,
            "maxBatchDelay": model.max_batch_delay_ms,
            "responseTimeout": model.response_timeout_s,
            "startupTimeout": model.startup_timeout_s,
        }
    yield "model_store", layout.model_store, "Where the .mar files are."
    yield (
        "load_models",
        ",".join(model.archive.path.name for model in plan.models),
        "Loaded at start, in this order: the version that is loaded first answers requests that name none.",
    )
    yield "models", json.dumps(models), _models_comment(plan)
    yield (
        "default_workers_per_model",
        1,
        "For a model registered later: TorchServe would start one for each CPU it sees.",
    )
    yield (
        "job_queue_size",
        plan.job_queue_size,
        f"Requests that may wait for one model: {LATENCY_QUEUE_PER_WORKER} batches for each worker. More are answered\n"
        "503 at once: refused early is better than answered too late."
        if plan.options.profile == "latency"
        else f"Requests that may wait for one model: two batches for each worker, at least {MIN_JOB_QUEUE_SIZE}.\n"
        "More are answered 503.",
    )
    yield "number_of_gpu", plan.gpus, "GPUs that workers are spread over; 0 keeps them on the CPU."


def _models_comment(plan: Plan) -> str:
    profile = plan.options.profile
    budget = f"{plan.gpus} GPUs" if plan.gpus else f"{plan.cpus:g} CPUs"
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    weights = ", ".join(f"{model.label}: {model.report.weight:g}" for model in plan.models)
    is_weighted = len({model.report.weight for model in plan.models}) > 1
    return "\n".join(
        [
            f"Profile {profile}. Workers: {plan.num_workers} on {budget}, {threads} each.",
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


def _launcher_rows(launcher: str | None) -> _Rows:
    if launcher is None:
        why = "Handlers limit their threads and pin themselves; the launcher counts cores, not the quota."
        yield "cpu_launcher_enable", False, why
        return
    yield (
        "cpu_launcher_enable",
        True,
        "As asked for with --launcher. It binds each worker to CPUs of its own, with numactl where that works and with\n"
        "taskset elsewhere; the handlers leave that as it is. TorchServe adds --ninstances and --rank, tries it with\n"
        "the `python` of PATH, and goes on without it when that fails.\n"
        "Changing the number of workers restarts all of them.",
    )
    yield "cpu_launcher_args", launcher, "CPUs of all workers, one of each core where they suffice; how many for each."


def _frontend_rows(plan: Plan) -> _Rows:
    if plan.is_small_jvm:
        options = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
        why = (
            "one thread collects it, and code is compiled once and lightly: more of either takes CPUs from the workers"
        )
    else:
        options, why = "-XX:+UseG1GC", "G1 keeps pauses short"
    yield (
        "vmargs",
        f"-XX:ActiveProcessorCount={plan.java_cpus} -Xmx{plan.memory.heap_mb}m {options} "
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(2, plan.java_cpus)} -XX:+ExitOnOutOfMemoryError",
        "The frontend shares the CPUs and the memory with the workers: it may count on the budget rounded up;\n"
        f"its heap is an eighth of the memory, 256 to 1024 MB; {why}.\n"
        "Its common pool has two threads at least: with one, TorchServe starts a new thread for every batch.\n"
        "Out of memory it ends, so that whoever runs it starts it again.",
    )
    yield (
        "number_of_netty_threads",
        plan.netty_threads,
        "Threads that read requests and write answers: one for each CPU, at most 8; at least 2, because a\n"
        "management call that waits for workers holds one.",
    )
    yield (
        "netty_client_threads",
        plan.netty_client_threads,
        "Threads that talk to the workers: they only copy bytes, so one for two CPUs, at most 4.",
    )


def _body_rows(plan: Plan) -> _Rows:
    largest, allowed = plan.largest_model, plan.max_request_bytes
    if largest.largest_request <= DEFAULT_BODY_BYTES:
        why = "TorchServe's own: the models' limits (handler.limits) allow no larger ones."
    elif largest.largest_request <= allowed:
        why = f"The largest that the limits of {largest.label} (handler.limits in its model-config.yaml) allow."
    else:
        why = (
            f"The limits of {largest.label} allow {largest.largest_request};\neight of this size fill the frontend's "
            "heap, and larger ones are answered 413. More memory gives a larger heap, up to 1024 MB."
        )
    yield "max_request_size", allowed, f"Bytes of a request, at most. {why}"
    yield (
        "max_response_size",
        plan.max_response_bytes,
        "Bytes of an answer, at most: a 32nd of the heap, for a whole batch is there at once. Handlers of ts_handlers\n"
        "answer 413 instead of a larger one; TorchServe ends a worker that sends it.",
    )


def _address_rows(layout: Layout) -> _Rows:
    inference = f"http://{layout.inference_host}:{layout.inference_port}"
    management = f"http://{layout.management_host}:{layout.management_port}"
    metrics = f"http://{layout.metrics_host}:{layout.metrics_port}"
    yield "inference_address", inference, "Who can reach the server. Inference:"
    yield "grpc_inference_address", layout.inference_host, "The same over gRPC; TorchServe cannot turn it off."
    yield "grpc_inference_port", layout.grpc_inference_port, "TorchServe's usual port is 7070."
    yield "management_address", management, "Management can replace models: keep it on the loopback address."
    yield "grpc_management_address", layout.management_host, "The same over gRPC."
    yield "grpc_management_port", layout.grpc_management_port, "TorchServe's usual port is 7071."
    yield "metrics_address", metrics, "Metrics ask for no token."
    yield (
        "initial_worker_port",
        layout.initial_worker_port,
        "Workers listen on unix sockets .ts.sock.N, counted from here, in the server's temporary folder.",
    )


def _access_rows(layout: Layout) -> _Rows:
    yield (
        "disable_token_authorization",
        layout.disable_token_authorization,
        "Whoever reaches the inference address is served: tokens differ from server to server, so that clients of\n"
        "several would need all of them. A gateway or a network policy decides who comes in."
        if layout.disable_token_authorization
        else "Clients send a token of key_file.json, in the folder the server runs in.",
    )
    yield "token_expiration_min", layout.token_expiration_min, "Minutes until a token must be renewed."
    yield "enable_model_api", False, "Nobody registers or removes models while the server runs."
    yield (
        "allowed_urls",
        NO_URL,
        "Models come from the model store only: this pattern matches no URL, and file names need no match.",
    )
    yield "install_py_dep_per_model", False, "Loading a model installs nothing."
    yield "enable_envvars_config", False, "Environment variables change nothing above."


def _metrics_rows(layout: Layout) -> _Rows:
    yield "enable_metrics_api", True, "Prometheus reads the metrics address."
    yield "metrics_mode", "prometheus", "TorchServe's own choice, log, gives Prometheus nothing."
    yield "metrics_config", layout.metrics_config, "Metrics that are not named in this file are dropped."
    yield (
        "model_metrics_auto_detect",
        False,
        "true would also keep what no file describes, under any name a handler makes up.",
    )
