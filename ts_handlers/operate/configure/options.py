"""The options of `ts-handlers configure`, with the bounds within which a number makes sense."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from ts_handlers.operate.arguments import whole
from ts_handlers.operate.configure.config_file import Layout
from ts_handlers.operate.configure.kubernetes.options import add_pod_arguments
from ts_handlers.operate.configure.plan import BATCH_SIZES, MAX_BATCH_SIZE, Options
from ts_handlers.operate.configure.workers import Profile
from ts_handlers.operate.torchserve.config import CONFIG_NAME
from ts_handlers.operate.torchserve.models import MAX_WORKERS

_OPTIONS = Options()
_LAYOUT = Layout(Path(), Path())
_MAX_DELAY_MS = 60_000
_MAX_TIMEOUT_S = 24 * 3600
_MAX_GPUS = 64
_MAX_MEMORY_MB = 2**26
_MAX_TOKEN_MIN = 366 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers configure`."""
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="folder with the .mar files")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"where to write (default: DIR/{CONFIG_NAME})")
    parser.add_argument("--force", action="store_true", help="replace a file that was not written by this command")
    _add_check_arguments(parser.add_argument_group("looking at a file instead of writing one"))
    _add_machine_arguments(parser.add_argument_group("the machine that serves"))
    _add_share_arguments(parser.add_argument_group("what the workers get"))
    add_pod_arguments(parser.add_argument_group("pods of Kubernetes"))
    _add_reach_arguments(parser.add_argument_group("who can reach the server"))


def _add_check_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        help="say what TorchServe would make of any config.properties: exit code 1 for problems, 2 if it cannot be read",
    )
    group.add_argument("--json", action="store_true", help="with --check: print the findings as JSON")


def _add_machine_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cpus", metavar="N", type=float, help="CPU budget (default: the smaller of quota and affinity, here)"
    )
    group.add_argument(
        "--memory-mb",
        metavar="N",
        type=whole(1, _MAX_MEMORY_MB),
        help="memory of the container in MiB (default: its limit, here)",
    )
    group.add_argument(
        "--gpus",
        metavar="N",
        type=whole(0, _MAX_GPUS),
        default=0,
        help="GPUs: a worker of each model on each (default: 0)",
    )
    group.add_argument(
        "--launcher",
        action="store_true",
        help="let torch's CPU launcher bind the one model's workers to CPUs, instead of the handlers",
    )


def _add_share_arguments(group: argparse._ArgumentGroup) -> None:
    def add(option: str, metavar: str, most: int, default: int, text: str) -> None:
        group.add_argument(
            option, metavar=metavar, type=whole(1, most), default=default, help=f"{text} (default: %(default)s)"
        )

    group.add_argument(
        "--profile",
        choices=get_args(Profile),
        default=_OPTIONS.profile,
        help="throughput: a worker with one thread on each CPU; latency: fewer with more threads, single requests, "
        "short queues (default: %(default)s)",
    )
    group.add_argument(
        "--workers", metavar="N", type=whole(1, MAX_WORKERS), help="workers of each model (default: share the budget)"
    )
    sizes = ", ".join(f"{size} for {profile}" for profile, size in BATCH_SIZES.items())
    group.add_argument(
        "--batch-size",
        metavar="N",
        type=whole(1, MAX_BATCH_SIZE),
        help=f"requests a worker takes at once, at most (default: {sizes})",
    )
    delay, response, startup = _OPTIONS.max_batch_delay_ms, _OPTIONS.response_timeout_s, _OPTIONS.startup_timeout_s
    add("--max-batch-delay-ms", "MS", _MAX_DELAY_MS, delay, "how long a worker waits for its batch to fill")
    add("--response-timeout-s", "S", _MAX_TIMEOUT_S, response, "seconds a worker may take for a batch")
    add("--startup-timeout-s", "S", _MAX_TIMEOUT_S, startup, "seconds a worker may take to load its model")


def _add_reach_arguments(group: argparse._ArgumentGroup) -> None:
    def add(option: str, metavar: str, kind: Callable[[str], object], text: str) -> None:
        default = getattr(_LAYOUT, option.replace("-", "_"))
        group.add_argument(
            f"--{option}", metavar=metavar, type=kind, default=default, help=f"{text} (default: %(default)s)"
        )

    for name, text in (("inference", "inference"), ("management", "management"), ("metrics", "Prometheus metrics")):
        add(f"{name}-host", "ADDRESS", _host, f"address of {text}")
        add(f"{name}-port", "PORT", _port, f"HTTP port of {text}")
    add("grpc-inference-port", "PORT", _port, "gRPC port of inference")
    add("grpc-management-port", "PORT", _port, "gRPC port of management")
    add("initial-worker-port", "PORT", _port, "number of the first worker's socket, .ts.sock.N")
    add("token-expiration-min", "MIN", whole(1, _MAX_TOKEN_MIN), "minutes until a token must be renewed")
    group.add_argument("--disable-token-authorization", action="store_true", help="serve clients without a token")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65534")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address or a host name (TorchServe reads no other)")
    return text
