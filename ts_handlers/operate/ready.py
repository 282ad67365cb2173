"""`ts-handlers ready`: whether a server can answer for every model, as a probe's exit code.

TorchServe's own /ping counts workers that are not loaded as healthy, so a probe on it sends requests to a server that
answers 503. This asks the management API, which in a pod listens on the loopback address only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ts_handlers.operate.arguments import whole
from ts_handlers.operate.readiness import KEY_FILE_NAME, ManagementClient
from ts_handlers.operate.server_config import ConfiguredModel, ServerConfig, read_server_config

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


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which running server is meant."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="its config.properties")
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        type=Path,
        help="the folder it was started with, where its tokens are; not needed without token authorization",
    )


def client_of(config: ServerConfig, run_dir: Path | None, timeout_s: float) -> ManagementClient:
    """Return a client of the server's management API.

    Args:
        config: The server's configuration.
        run_dir: Folder of its key_file.json; by default `run` beside its configuration, as `serve` has it.
        timeout_s: How long one answer may take.
    """
    folder = config.path.parent / "run" if run_dir is None else run_dir
    return ManagementClient(
        config.management, folder / KEY_FILE_NAME if config.is_token_required else None, timeout_s=timeout_s
    )


def run(args: argparse.Namespace) -> int:
    """Ask for every model; print what there is."""
    config = read_server_config(args.config)
    client = client_of(config, args.run_dir, args.timeout_s)
    missing = [reason for model in config.models if (reason := _what_is_missing(client, model))]
    if missing:
        print(f"not ready: {'; '.join(missing)}")
        return NOT_READY
    print(f"ready: {', '.join(f'{model.name} {model.version}' for model in config.models)}")
    return 0


def _what_is_missing(client: ManagementClient, model: ConfiguredModel) -> str:
    """Return why a model cannot be served; empty where it can."""
    status, answer = client.get(f"/models/{model.name}/{model.version}")
    if status != 200:
        said = f"the management API answers {status}" if status else "the management API does not answer"
        return f"{model.name} {model.version}: {said}"
    states = [worker["status"] for worker in answer[0]["workers"]]
    if "READY" in states:
        return ""
    return f"{model.name} {model.version}: no worker is READY ({', '.join(states) or 'there is none'})"
