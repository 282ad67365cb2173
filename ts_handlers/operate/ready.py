"""`ts-handlers ready`: whether a server can answer for every model, as a probe's exit code.

TorchServe's own /ping counts workers that are not loaded as healthy, so a probe on it sends requests to a server that
answers 503. This asks the management API, which in a pod listens on the loopback address only.
"""

from __future__ import annotations

import argparse

from ts_handlers.operate.arguments import add_server_arguments, whole
from ts_handlers.operate.torchserve.client import TorchServe, TorchServeError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import ConfiguredModel, served_models

HELP = "say whether a running server has a READY worker of every model: exit code 0, else 1"

NOT_READY = 1
PROBE_TIMEOUT_S = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers ready`."""
    add_server_arguments(parser)
    parser.add_argument(
        "--timeout-s",
        metavar="S",
        type=whole(1, 600),
        default=PROBE_TIMEOUT_S,
        help="seconds the management API may take; keep it below the probe's own (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Ask for every model; print what there is."""
    config = read_config(args.config)
    models = served_models(config)
    server = TorchServe.of(config, args.run_dir, timeout_s=args.timeout_s)
    missing = [reason for model in models if (reason := _what_is_missing(server, model))]
    if missing:
        print(f"not ready: {'; '.join(missing)}")
        return NOT_READY
    print(f"ready: {', '.join(model.label for model in models)}")
    return 0


def _what_is_missing(server: TorchServe, model: ConfiguredModel) -> str:
    """Return why a model cannot be served; empty where it can."""
    try:
        status = server.status(model.name, model.version)
    except TorchServeError as error:
        return f"{model.label}: {error}"
    if status.num_ready:
        return ""
    loading = f"{len(status.workers)} loading" if status.workers else "there is none"
    return f"{model.label}: no worker is READY ({loading})"
