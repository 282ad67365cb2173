"""The options of `ts-handlers configure`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ts_handlers.operate.arguments import add_options, whole
from ts_handlers.operate.configure.config_file import Layout
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.model import Options
from ts_handlers.operate.torchserve.config import CONFIG_NAME

_MAX_MEMORY_MB = 2**26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers configure`."""
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="folder with the .mar files")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"where to write (default: DIR/{CONFIG_NAME})")
    parser.add_argument("--force", action="store_true", help="replace a file that was not written by this command")
    _add_check_arguments(parser.add_argument_group("looking at a file instead of writing one"))
    _add_machine_arguments(parser.add_argument_group("the machine that serves"))
    add_options(parser.add_argument_group("what the workers get"), Options)
    pods = parser.add_argument_group("pods of Kubernetes")
    pods.add_argument(
        "--kubernetes",
        metavar="OUT",
        type=Path,
        help="write a kustomize overlay into this folder instead: config.properties, and a pod with the CPUs (--cpus, "
        "default 2), memory and thresholds that go with it",
    )
    add_options(pods, PodOptions)
    add_options(parser.add_argument_group("who can reach the server"), Layout)


def _add_check_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        help="say what TorchServe would make of any config.properties: exit code 1 for problems, 2 if it cannot be read",
    )
    group.add_argument("--json", action="store_true", help="with --check: print the findings as JSON")
    group.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="with --check: the folder that is / where the server runs, as an unpacked image (default: it runs here)",
    )
    group.add_argument(
        "--model-store",
        metavar="DIR",
        type=Path,
        help="with --check: the folder that is the model store where the server runs (default: what the file names)",
    )


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
        "--launcher",
        action="store_true",
        help="let torch's CPU launcher bind the one model's workers to CPUs, instead of the handlers",
    )
