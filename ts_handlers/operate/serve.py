"""`ts-handlers serve`: TorchServe in the foreground, which says when it is ready and leaves nothing behind."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ts_handlers.config.sections import RESPONSE_ENV
from ts_handlers.errors import OperatorError
from ts_handlers.machine import POOL_ENV, WORKERS_ENV, cpu_budget, cpu_share
from ts_handlers.machine.share import threads_from_environ
from ts_handlers.operate.arguments import whole
from ts_handlers.operate.stop_signals import StopRequested, ignore_stop_signals, stop_on_signals
from ts_handlers.operate.torchserve.client import KEY_FILE_NAME, RUN_FOLDER, TorchServe
from ts_handlers.operate.torchserve.config import CONFIG_NAME, CONFIG_VARIABLE, ServerConfig, read_config
from ts_handlers.operate.torchserve.models import served_models, worker_numbers
from ts_handlers.operate.torchserve.process.frontend import LOG_CONFIG, STOP_GRACE_S, Frontend, frontend_command
from ts_handlers.operate.torchserve.process.idle import wait_idle
from ts_handlers.operate.torchserve.process.java import find_java
from ts_handlers.operate.torchserve.process.ports import (
    check_free,
    remove_dead_sockets,
    worker_socket,
    worker_socket_folder,
)
from ts_handlers.operate.torchserve.process.readiness import (
    READY,
    WorkerFailedError,
    WorkerWatch,
    wait_ready,
)
from ts_handlers.operate.torchserve.process.temporary import own_temporary

HELP = "run TorchServe in the foreground on a configured folder"

_JAVA_END_S = 5.0
"""Part of that for Java itself, which has nothing left to answer by then."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers serve`."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="folder with the .mar files")
    parser.add_argument("--config", metavar="FILE", type=Path, help=f"default: DIR/{CONFIG_NAME}")
    parser.add_argument(
        "--run-dir", metavar="DIR", type=Path, help="where tokens and logs are written; default: DIR/run"
    )
    parser.add_argument(
        "--log-config", metavar="FILE", type=Path, default=LOG_CONFIG, help="log4j2 configuration (default: ours)"
    )
    parser.add_argument(
        "--stop-grace-s",
        metavar="S",
        type=whole(0, 24 * 3600),
        default=STOP_GRACE_S,
        help="seconds to answer what was accepted, and to end (default: %(default)s); a second signal ends at once",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal asks to stop (exit code 0) or TorchServe ends by itself (its exit code)."""
    directory: Path = args.directory.resolve()
    config = _read_config(directory, args.config)
    if not args.log_config.is_file():
        raise OperatorError(f"there is no log configuration {args.log_config}; leave --log-config out for ours")
    java = find_java()
    with (
        claim_run_folder(args.run_dir or directory / RUN_FOLDER) as folder,
        own_temporary(folder, config.vmargs, os.environ.get("TEMP")) as temporary,
    ):
        sockets_folder = temporary or worker_socket_folder(config.vmargs)
        sockets = [worker_socket(sockets_folder, port) for port in worker_numbers(config)]
        check_free(config, sockets_folder)
        remove_dead_sockets(sockets)
        key_file = folder / KEY_FILE_NAME
        key_file.unlink(missing_ok=True)
        _say(f"TorchServe on Java {java.version} ({java.source}); logs in {_logs(folder)}")
        command = frontend_command(java, config, directory, log_config=args.log_config, temporary=temporary)
        environ = frontend_environ(config, java.home) | ({"TMPDIR": str(temporary)} if temporary else {})
        try:
            with stop_on_signals(), Frontend(command, working_folder=folder, environ=environ) as frontend:
                return _attend(frontend, config, folder, args.stop_grace_s)
        except StopRequested:  # a second signal, or one before the frontend was attended
            return 0
        finally:
            key_file.unlink(missing_ok=True)
            remove_dead_sockets(sockets)


def frontend_environ(config: ServerConfig, java_home: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of the frontend and of its workers.

    TS_CONFIG_FILE is left out, because TorchServe would read that file instead of the one it is given. Thread pools that
    start when their library is loaded, before a handler can limit them, are limited here, unless the operator did.
    """
    kept = {name: value for name, value in environ.items() if name != CONFIG_VARIABLE}
    num_workers = len(worker_numbers(config))
    share = cpu_share(cpu_budget(), num_workers, threads=threads_from_environ(environ))
    pools = dict.fromkeys(POOL_ENV, str(share.threads))
    ours = {WORKERS_ENV: str(num_workers), RESPONSE_ENV: str(config.max_response_bytes)}
    return pools | kept | ours | {"JAVA_HOME": str(java_home)}


@contextmanager
def claim_run_folder(path: Path) -> Iterator[Path]:
    """Create the run folder and hold it for this server alone.

    Raises:
        OperatorError: It cannot be written, or another server runs in it.
    """
    path = path.resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "serve.lock").open("a", encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"cannot write to {path}: {error.strerror or error}; choose another --run-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperatorError(f"another server runs in {path}; stop it, or choose another --run-dir") from error
        yield path


def _read_config(directory: Path, given: Path | None) -> ServerConfig:
    path = given or directory / CONFIG_NAME
    if not path.is_file():
        raise OperatorError(f"there is no {path}; write it with: ts-handlers configure {directory}")
    if not directory.is_dir():
        raise OperatorError(f"there is no folder {directory}; give the folder that holds your .mar files")
    config = read_config(path, model_store=directory)
    config.check_variables()
    return config


def _logs(folder: Path) -> Path:
    """Return where the logs are: LOG_LOCATION in the environment moves them."""
    return folder / os.environ.get("LOG_LOCATION", "logs")


def _attend(frontend: Frontend, config: ServerConfig, folder: Path, grace_s: int) -> int:
    """Say when the server is ready, then wait until it ends or a signal comes.

    Raises:
        StopRequested: A second signal came, and nothing is waited for any more.
    """
    watch = WorkerWatch(TorchServe.of(config, folder), _logs(folder))
    models = served_models(config)
    try:
        _print_addresses(config, folder)
        seconds = wait_ready(models, watch, lambda: frontend.poll() is None)
        _say(f"{READY} after {seconds:.1f} s: {', '.join(f'{model.label} x {model.workers}' for model in models)}")
        code = frontend.wait()
    except WorkerFailedError:
        with suppress(StopRequested):
            frontend.stop(grace_s)
        raise
    except StopRequested as stop:
        _say(f"stopping ({signal.Signals(stop.number).name}): a second signal ends at once")
        end_s = time.monotonic() + grace_s
        left = wait_idle(frontend.pid, grace_s - _JAVA_END_S, batch_delay_s=watch.longest_batch_delay_ms / 1000)
        if left:
            _say(f"not all was answered within {grace_s} s: {left}")
        frontend.stop(max(1.0, end_s - time.monotonic()))
        code = 0
    ignore_stop_signals()
    return code


def _print_addresses(config: ServerConfig, folder: Path) -> None:
    _say(f"inference   {config.inference.url}")
    _say(f"management  {config.management.url}")
    if config.metrics is not None:
        _say(f"metrics     {config.metrics.url}/metrics")
    for address in config.grpc:
        _say(f"{address.name:<16}  {address.host}:{address.port}")
    tokens = f"{folder / KEY_FILE_NAME} (they expire)" if config.is_token_required else "none: any client is served"
    _say(f"tokens      {tokens}")


def _say(line: str) -> None:
    """Print a line. A pipe that has gone (Ctrl-C ends `| tee`, too) is no reason to drop requests."""
    try:
        print(line, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # where Python writes the rest of its buffer in the end
        os.close(nowhere)
