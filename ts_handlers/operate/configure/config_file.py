"""What stands in config.properties, line by line, each with the reason for its value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.operate.configure.bodies import BodyPlan
from ts_handlers.operate.configure.launcher import Launch
from ts_handlers.operate.configure.plan import LATENCY_QUEUE_PER_WORKER, MIN_JOB_QUEUE_SIZE, Plan
from ts_handlers.operate.torchserve.properties import Entry

HEADER = "Written by `ts-handlers configure`. Run it again after the models or the CPU limit change."
NO_URL = "(?!)"
"""A pattern nothing matches. TorchServe takes a plain file name from the model store without asking `allowed_urls`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the server listens and finds its files.

    Attributes:
        model_store: Folder of the .mar files, absolute.
        metrics_config: The metrics.yaml, absolute.
        inference_host: Address of the inference API, HTTP and gRPC.
        management_host: Address of the management API, HTTP and gRPC.
        metrics_host: Address of the Prometheus metrics.
        inference_port: HTTP port of the inference API.
        management_port: HTTP port of the management API.
        metrics_port: HTTP port of the Prometheus metrics.
        grpc_inference_port: gRPC port of the inference API.
        grpc_management_port: gRPC port of the management API.
        initial_worker_port: Number of the first worker's socket; the others follow it.
        is_token_required: Whether clients must send a token.
        token_expiration_min: Minutes a token lives.
    """

    model_store: Path
    metrics_config: Path
    inference_host: str = "127.0.0.1"
    management_host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
    inference_port: int = 8080
    management_port: int = 8081
    metrics_port: int = 8082
    grpc_inference_port: int = 7070
    grpc_management_port: int = 7071
    initial_worker_port: int = 9000
    is_token_required: bool = True
    token_expiration_min: int = 60


def make_entries(plan: Plan, layout: Layout, *, launch: Launch | None = None, preload: str = "") -> list[Entry]:
    """Return every line of config.properties, each with the reason for its value.

    Args:
        plan: What was decided for models and frontend.
        layout: Addresses and paths.
        launch: The launcher's arguments, where it was asked for.
        preload: What to say about allocators and NUMA nodes.
    """
    return [
        *_model_entries(plan, layout),
        *_launcher_entries(launch, preload),
        *_frontend_entries(plan),
        *_body_entries(plan.bodies),
        *_reach_entries(layout),
        *_metrics_entries(layout),
    ]


def _model_entries(plan: Plan, layout: Layout) -> list[Entry]:
    models: dict[str, dict[str, dict[str, object]]] = {}
    for model in plan.models:
        models.setdefault(model.name, {})[model.version] = {
            "defaultVersion": model.is_default,
            "marName": model.mar_name,
            "minWorkers": model.min_workers,
            "maxWorkers": model.max_workers,
            "batchSize": model.batch_size,
            "maxBatchDelay": model.max_batch_delay_ms,
            "responseTimeout": model.response_timeout_s,
            "startupTimeout": model.startup_timeout_s,
        }
    return [
        Entry("model_store", str(layout.model_store), "Where the .mar files are."),
        Entry(
            "load_models",
            ",".join(model.mar_name for model in plan.models),
            "Loaded at start, in this order: the version that is loaded first answers requests that name none.",
        ),
        Entry("models", json.dumps(models), _models_comment(plan)),
        Entry(
            "default_workers_per_model",
            "1",
            "For a model registered later: TorchServe would start one for each CPU it sees.",
        ),
        Entry("job_queue_size", str(plan.job_queue_size), _queue_comment(plan)),
        Entry("number_of_gpu", str(plan.gpus), "GPUs that workers are spread over; 0 keeps them on the CPU."),
    ]


def _models_comment(plan: Plan) -> str:
    budget = f"{plan.gpus} GPUs" if plan.gpus else f"{plan.cpus:g} CPUs"
    threads = "1 thread" if plan.workers.threads == 1 else f"{plan.workers.threads} threads"
    weights = {model.weight for model in plan.models}
    shares = ", ".join(f"{model.name} {model.version}: {model.weight:g}" for model in plan.models)
    batches = (
        "batchSize: requests a worker takes at once, at most."
        if plan.profile == "throughput"
        else "batchSize: small, so that no request waits for the computing of others; with 1, none waits to fill a batch."
    )
    return "\n".join(
        [
            f"Profile {plan.profile}. Workers: {plan.num_workers} on {budget}, {threads} each.",
            plan.workers.reason,
            *([f"Weights: {shares}."] if len(weights) > 1 else []),
            batches,
            "maxBatchDelay: ms a worker waits for its batch to fill; 1 is the least, for TorchServe makes 100 of 0.",
            "maxWorkers is minWorkers: TorchServe never starts more by itself. Timeouts are in seconds: a worker that takes",
            "longer to answer a batch, or to load, is killed and started again.",
            *_fixed_comment(plan),
        ]
    )


def _fixed_comment(plan: Plan) -> list[str]:
    """Say which values are an archive's own: TorchServe prefers those, so the line repeats them."""
    return [
        f"{model.name} {model.version}: {', '.join(model.fixed)} as in its model-config.yaml, which wins over this line."
        for model in plan.models
        if model.fixed
    ]


def _queue_comment(plan: Plan) -> str:
    if plan.profile == "latency":
        return (
            f"Requests that may wait for one model: {LATENCY_QUEUE_PER_WORKER} batches for each worker. More are answered\n"
            "503 at once: refused early is better than answered too late."
        )
    return (
        f"Requests that may wait for one model: two batches for each worker, at least {MIN_JOB_QUEUE_SIZE}.\n"
        "More are answered 503."
    )


def _launcher_entries(launch: Launch | None, preload: str) -> list[Entry]:
    more = f"\n{preload}" if preload else ""
    if launch is None:
        why = "Handlers limit their threads and pin themselves; the launcher counts cores, not the quota."
        return [Entry("cpu_launcher_enable", "false", why + more)]
    return [
        Entry("cpu_launcher_enable", "true", launch.comment + more),
        Entry("cpu_launcher_args", launch.args, "CPUs of all workers; how many each takes; where memory comes from."),
    ]


def _frontend_entries(plan: Plan) -> list[Entry]:
    if plan.is_small_jvm:
        options = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
        why = (
            "one thread collects it, and code is compiled once and lightly: more of either takes CPUs from the workers"
        )
    else:
        options, why = "-XX:+UseG1GC", "G1 keeps pauses short"
    pool = max(2, plan.java_cpus)
    return [
        Entry(
            "vmargs",
            f"-XX:ActiveProcessorCount={plan.java_cpus} -Xmx{plan.heap_mb}m {options} "
            f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={pool} -XX:+ExitOnOutOfMemoryError",
            "The frontend shares the CPUs and the memory with the workers: it may count on the budget rounded up;\n"
            f"its heap is an eighth of the memory, 256 to 1024 MB; {why}.\n"
            "Its common pool has two threads at least: with one, TorchServe starts a new thread for every batch.\n"
            "Out of memory it ends, so that whoever runs it starts it again.",
        ),
        Entry(
            "number_of_netty_threads",
            str(plan.netty_threads),
            "Threads that read requests and write answers: one for each CPU, at most 8; at least 2, because a\n"
            "management call that waits for workers holds one.",
        ),
        Entry(
            "netty_client_threads",
            str(plan.netty_client_threads),
            "Threads that talk to the workers: they only copy bytes, so one for two CPUs, at most 4.",
        ),
    ]


def _body_entries(bodies: BodyPlan) -> list[Entry]:
    if bodies.largest_from is None:
        why = "TorchServe's own: the models' limits (handler.limits) allow no larger ones."
    elif bodies.largest_bytes <= bodies.max_request_bytes:
        why = f"The largest that the limits of {bodies.largest_from} (handler.limits in its model-config.yaml) allow."
    else:
        why = (
            f"The limits of {bodies.largest_from} allow {bodies.largest_bytes};\neight of this size fill the frontend's "
            "heap, and larger ones are answered 413. More memory gives a larger heap, up to 1024 MB."
        )
    return [
        Entry("max_request_size", str(bodies.max_request_bytes), f"Bytes of a request, at most. {why}"),
        Entry(
            "max_response_size",
            str(bodies.max_response_bytes),
            "Bytes of an answer, at most: a 32nd of the heap, for a whole batch is there at once. Handlers of ts_handlers\n"
            "answer 413 instead of a larger one; TorchServe ends a worker that sends it.",
        ),
    ]


def _reach_entries(layout: Layout) -> list[Entry]:
    def url(host: str, port: int) -> str:
        return f"http://{host}:{port}"

    return [
        Entry(
            "inference_address",
            url(layout.inference_host, layout.inference_port),
            "Who can reach the server. Inference:",
        ),
        Entry("grpc_inference_address", layout.inference_host, "The same over gRPC; TorchServe cannot turn it off."),
        Entry("grpc_inference_port", str(layout.grpc_inference_port), "TorchServe's usual port is 7070."),
        Entry(
            "management_address",
            url(layout.management_host, layout.management_port),
            "Management can replace models: keep it on the loopback address.",
        ),
        Entry("grpc_management_address", layout.management_host, "The same over gRPC."),
        Entry("grpc_management_port", str(layout.grpc_management_port), "TorchServe's usual port is 7071."),
        Entry("metrics_address", url(layout.metrics_host, layout.metrics_port), "Metrics ask for no token."),
        Entry(
            "initial_worker_port",
            str(layout.initial_worker_port),
            "Workers listen on unix sockets .ts.sock.N, counted from here, in the server's temporary folder.",
        ),
        Entry(
            "disable_token_authorization",
            "false" if layout.is_token_required else "true",
            "Clients send a token of key_file.json, in the folder the server runs in."
            if layout.is_token_required
            else "Whoever reaches the inference address is served: tokens differ from server to server, so that clients of\n"
            "several would need all of them. A gateway or a network policy decides who comes in.",
        ),
        Entry("token_expiration_min", str(layout.token_expiration_min), "Minutes until a token must be renewed."),
        Entry("enable_model_api", "false", "Nobody registers or removes models while the server runs."),
        Entry(
            "allowed_urls",
            NO_URL,
            "Models come from the model store only: this pattern matches no URL, and file names need no match.",
        ),
        Entry("install_py_dep_per_model", "false", "Loading a model installs nothing."),
        Entry("enable_envvars_config", "false", "Environment variables change nothing above."),
    ]


def _metrics_entries(layout: Layout) -> list[Entry]:
    return [
        Entry("enable_metrics_api", "true", "Prometheus reads the metrics address."),
        Entry("metrics_mode", "prometheus", "TorchServe's own choice, log, gives Prometheus nothing."),
        Entry("metrics_config", str(layout.metrics_config), "Metrics that are not named in this file are dropped."),
        Entry(
            "model_metrics_auto_detect",
            "false",
            "true would also keep what no file describes, under any name a handler makes up.",
        ),
    ]
