"""The options of `ts-handlers configure`, with the bounds within which a number makes sense."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ts_handlers.operate.arguments import whole
from ts_handlers.operate.configure.config_file import Layout
from ts_handlers.operate.configure.kubernetes.options import POD_ARGUMENTS, PodOptions
from ts_handlers.operate.configure.model import BATCH_SIZES, Options, Profile
from ts_handlers.operate.configure.plan import MAX_BATCH_SIZE
from ts_handlers.operate.torchserve.config import CONFIG_NAME
from ts_handlers.operate.torchserve.models import MAX_WORKERS

_MAX_DELAY_MS = 60_000
_MAX_TIMEOUT_S = 24 * 3600
_MAX_GPUS = 64
_MAX_MEMORY_MB = 2**26
_MAX_TOKEN_MIN = 366 * 24 * 60


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65534")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address or a host name (TorchServe reads no other)")
    return text


_CHECK: Mapping[str, Mapping[str, Any]] = {
    "--check": {
        "metavar": "FILE",
        "type": Path,
        "help": "say what TorchServe would make of any config.properties: exit code 1 for problems, 2 if it cannot be read",
    },
    "--json": {"action": "store_true", "help": "with --check: print the findings as JSON"},
}
_MACHINE: Mapping[str, Mapping[str, Any]] = {
    "--cpus": {"metavar": "N", "type": float, "help": "CPU budget (default: the smaller of quota and affinity, here)"},
    "--memory-mb": {
        "metavar": "N",
        "type": whole(1, _MAX_MEMORY_MB),
        "help": "memory of the container in MiB (default: its limit, here)",
    },
    "--gpus": {
        "metavar": "N",
        "type": whole(0, _MAX_GPUS),
        "help": "GPUs: a worker of each model on each (default: %(default)s)",
    },
    "--launcher": {
        "action": "store_true",
        "help": "let torch's CPU launcher bind the one model's workers to CPUs, instead of the handlers",
    },
}
_WORKERS: Mapping[str, Mapping[str, Any]] = {
    "--profile": {
        "choices": get_args(Profile),
        "help": "throughput: a worker with one thread on each CPU; latency: fewer with more threads, single requests, "
        "short queues (default: %(default)s)",
    },
    "--workers": {
        "metavar": "N",
        "type": whole(1, MAX_WORKERS),
        "help": "workers of each model (default: share the budget)",
    },
    "--batch-size": {
        "metavar": "N",
        "type": whole(1, MAX_BATCH_SIZE),
        "help": "requests a worker takes at once, at most (default: "
        f"{', '.join(f'{size} for {profile}' for profile, size in BATCH_SIZES.items())})",
    },
    "--max-batch-delay-ms": {
        "metavar": "MS",
        "type": whole(1, _MAX_DELAY_MS),
        "help": "how long a worker waits for its batch to fill (default: %(default)s)",
    },
    "--response-timeout-s": {
        "metavar": "S",
        "type": whole(1, _MAX_TIMEOUT_S),
        "help": "seconds a worker may take for a batch (default: %(default)s)",
    },
    "--startup-timeout-s": {
        "metavar": "S",
        "type": whole(1, _MAX_TIMEOUT_S),
        "help": "seconds a worker may take to load its model (default: %(default)s)",
    },
}
_PORTS = {
    "--inference-port": "HTTP port of inference",
    "--management-port": "HTTP port of management",
    "--metrics-port": "HTTP port of Prometheus metrics",
    "--grpc-inference-port": "gRPC port of inference",
    "--grpc-management-port": "gRPC port of management",
    "--initial-worker-port": "number of the first worker's socket, .ts.sock.N",
}
_HOSTS = {
    "--inference-host": "address of inference",
    "--management-host": "address of management",
    "--metrics-host": "address of Prometheus metrics",
}
_ACCESS: Mapping[str, Mapping[str, Any]] = {
    **{
        name: {"metavar": metavar, "type": kind, "help": f"{text} (default: %(default)s)"}
        for table, metavar, kind in ((_HOSTS, "ADDRESS", _host), (_PORTS, "PORT", _port))
        for name, text in table.items()
    },
    "--token-expiration-min": {
        "metavar": "MIN",
        "type": whole(1, _MAX_TOKEN_MIN),
        "help": "minutes until a token must be renewed (default: %(default)s)",
    },
    "--disable-token-authorization": {"action": "store_true", "help": "serve clients without a token"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers configure`."""
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="folder with the .mar files")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"where to write (default: DIR/{CONFIG_NAME})")
    parser.add_argument("--force", action="store_true", help="replace a file that was not written by this command")
    layout = Layout(Path(), Path())
    for title, defaults, table in (
        ("looking at a file instead of writing one", None, _CHECK),
        ("the machine that serves", Options(), _MACHINE),
        ("what the workers get", Options(), _WORKERS),
        ("pods of Kubernetes", PodOptions(), POD_ARGUMENTS),
        ("who can reach the server", layout, _ACCESS),
    ):
        group = parser.add_argument_group(title)
        for name, settings in table.items():
            field = name.removeprefix("--").replace("-", "_")
            default = {"default": getattr(defaults, field)} if hasattr(defaults, field) else {}
            group.add_argument(name, **default, **settings)
