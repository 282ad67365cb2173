"""What the operator can ask `ts-handlers configure` for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ts_handlers.operate.arguments import matching, option, whole
from ts_handlers.operate.torchserve.models import MAX_WORKERS

Profile = Literal["throughput", "latency"]

BATCH_SIZES: Mapping[Profile, int] = {"throughput": 8, "latency": 1}
MAX_BATCH_SIZE = 4096
MAX_BATCH_DELAY_MS = 1
"""The smallest delay TorchServe takes: it makes 100 of 0."""

MAX_CPUS = 4096.0
"""Beyond it a number is a slip of the pen."""

_SIZES = ", ".join(f"{size} for {profile}" for profile, size in BATCH_SIZES.items())
_A_DAY_S = 24 * 3600
_PORT = whole(1, 65534)
_HOST = matching(r"[A-Za-z0-9._-]+", "IPv4 address and no host name (TorchServe reads nothing else)")


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What the operator may ask of a file that is there; each field is an option, and says what it is."""

    check: Path | None = option(
        None,
        "say what TorchServe would make of any config.properties: exit code 1 for problems, 2 if it cannot be read",
        "FILE",
        Path,
    )
    json: bool = option(False, "with --check: print the findings as JSON")
    root: Path | None = option(
        None,
        "with --check: the folder that is / where the server runs, as an unpacked image (default: it runs here)",
        "DIR",
        Path,
    )
    model_store: Path | None = option(
        None,
        "with --check: the folder that is the model store where the server runs (default: what the file names)",
        "DIR",
        Path,
    )


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """What the operator may say of the machine that serves; each field is an option, and says what it is."""

    cpus: float | None = option(None, "CPU budget (default: the smaller of quota and affinity, here)", "N", float)
    memory_mb: int | None = option(
        None, "memory of the container in MiB (default: its limit, here)", "N", whole(1, 2**26)
    )
    launcher: bool = option(
        False, "let torch's CPU launcher bind the one model's workers to CPUs, instead of the handlers"
    )


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may ask for the workers; each field is an option, and says what it is."""

    profile: Profile = option(
        "throughput",
        "throughput: a worker with one thread on each CPU; latency: fewer with more threads, single requests, short queues",
        choices=get_args(Profile),
    )
    gpus: int = option(0, "GPUs: a worker of each model on each", "N", whole(0, 64))
    workers: int | None = option(None, "workers of each model (default: share the budget)", "N", whole(1, MAX_WORKERS))
    batch_size: int | None = option(
        None, f"requests a worker takes at once, at most (default: {_SIZES})", "N", whole(1, MAX_BATCH_SIZE)
    )
    max_batch_delay_ms: int = option(
        MAX_BATCH_DELAY_MS, "how long a worker waits for its batch to fill", "MS", whole(1, 60_000)
    )
    response_timeout_s: int = option(120, "seconds a worker may take for a batch", "S", whole(1, _A_DAY_S))
    startup_timeout_s: int = option(300, "seconds a worker may take to load its model", "S", whole(1, _A_DAY_S))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the server listens and finds its files; a field that is an option says what it is.

    Attributes:
        model_store: Folder of the .mar files, absolute.
        metrics_config: The metrics.yaml, absolute.
    """

    model_store: Path
    metrics_config: Path
    inference_host: str = option("127.0.0.1", "address of inference", "ADDRESS", _HOST)
    inference_port: int = option(8080, "HTTP port of inference", "PORT", _PORT)
    management_host: str = option("127.0.0.1", "address of management", "ADDRESS", _HOST)
    management_port: int = option(8081, "HTTP port of management", "PORT", _PORT)
    metrics_host: str = option("127.0.0.1", "address of Prometheus metrics", "ADDRESS", _HOST)
    metrics_port: int = option(8082, "HTTP port of Prometheus metrics", "PORT", _PORT)
    grpc_inference_port: int = option(7070, "gRPC port of inference", "PORT", _PORT)
    grpc_management_port: int = option(7071, "gRPC port of management", "PORT", _PORT)
    initial_worker_port: int = option(9000, "number of the first worker's socket, .ts.sock.N", "PORT", _PORT)
    token_expiration_min: int = option(60, "minutes until a token must be renewed", "MIN", whole(1, 366 * 24 * 60))
    disable_token_authorization: bool = option(False, "serve clients without a token")
