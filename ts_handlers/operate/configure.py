"""`ts-handlers configure`: every .mar of a folder -> one config.properties that is right for this machine."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from ts_handlers.cpu import cpu_budget
from ts_handlers.errors import OperatorError
from ts_handlers.operate import properties
from ts_handlers.operate.archives import read_archives
from ts_handlers.operate.config_file import CONFIG_NAME, HEADER, METRICS_NAME, Layout, make_entries
from ts_handlers.operate.machine import memory_limit
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.plan import Options, Plan, make_plan

HELP = "write config.properties and metrics.yaml for every .mar in a folder"

_OPTIONS = Options()
_LAYOUT = Layout(Path(), Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers configure`."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="folder with the .mar files")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"where to write (default: DIR/{CONFIG_NAME})")
    parser.add_argument("--force", action="store_true", help="replace a file that was not written by this command")
    _add_share_arguments(parser.add_argument_group("what the workers get"))
    _add_reach_arguments(parser.add_argument_group("who can reach the server"))


def _add_share_arguments(group: argparse._ArgumentGroup) -> None:
    def add(option: str, metavar: str, default: int, text: str) -> None:
        group.add_argument(
            option, metavar=metavar, type=_positive, default=default, help=f"{text} (default: %(default)s)"
        )

    group.add_argument(
        "--cpus", metavar="N", type=float, help="CPU budget (default: the smaller of quota and affinity)"
    )
    group.add_argument(
        "--gpus", metavar="N", type=_natural, default=0, help="GPUs: a worker of each model on each (default: 0)"
    )
    group.add_argument(
        "--workers", metavar="N", type=_positive, help="workers of each model (default: share the budget)"
    )
    add("--batch-size", "N", _OPTIONS.batch_size, "requests a worker takes at once, at most")
    add("--max-batch-delay-ms", "MS", _OPTIONS.max_batch_delay_ms, "how long a worker waits for its batch to fill")
    add("--response-timeout-s", "S", _OPTIONS.response_timeout_s, "seconds a worker may take for a batch")
    add("--startup-timeout-s", "S", _OPTIONS.startup_timeout_s, "seconds a worker may take to load its model")


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
    add("initial-worker-port", "PORT", _port, "number of the first worker's socket, /tmp/.ts.sock.N")
    add("token-expiration-min", "MIN", _positive, "minutes until a token must be renewed")
    group.add_argument("--disable-token-authorization", action="store_true", help="serve clients without a token")


def run(args: argparse.Namespace) -> int:
    """Decide, write both files and say what was decided."""
    directory: Path = args.directory.resolve()
    output: Path = (args.output or directory / CONFIG_NAME).resolve()
    archives = read_archives(directory)
    budget = cpu_budget()
    cpus = budget.cpus if args.cpus is None else args.cpus
    options = Options(
        workers=args.workers,
        batch_size=args.batch_size,
        max_batch_delay_ms=args.max_batch_delay_ms,
        response_timeout_s=args.response_timeout_s,
        startup_timeout_s=args.startup_timeout_s,
        gpus=args.gpus,
    )
    plan = make_plan(archives, cpus, options, memory_bytes=memory_limit())
    layout = _layout(args, directory, output.parent / METRICS_NAME)
    _check_ports(layout, plan)
    _check_ours(output, HEADER, force=args.force)
    _check_ours(layout.metrics_config, METRICS_HEADER, force=args.force)
    write_text(layout.metrics_config, metrics_yaml())
    write_text(output, properties.render(make_entries(plan, layout), header=HEADER))
    print(f"budget: {budget.describe() if args.cpus is None else f'{cpus:g} CPUs (given)'}")
    _print_plan(plan)
    print(f"wrote {output} and {layout.metrics_config}")
    print(f"next: ts-handlers serve {args.directory}" + (f" --config {args.output}" if args.output else ""))
    return 0


def write_text(file: Path, text: str) -> None:
    """Replace a file in one step, so that nobody ever reads half of it.

    Raises:
        OperatorError: Its folder does not exist or may not be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding=properties.ENCODING, dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as temporary:
            temporary.write(text)
        mode = 0o666 & ~_umask()
        Path(temporary.name).chmod(mode)
        Path(temporary.name).replace(file)
    except OSError as error:
        raise OperatorError(
            f"cannot write {file}: {error.strerror or error}; choose another place with --output"
        ) from error


def _layout(args: argparse.Namespace, directory: Path, metrics_config: Path) -> Layout:
    return Layout(
        model_store=directory,
        metrics_config=metrics_config,
        inference_host=args.inference_host,
        management_host=args.management_host,
        metrics_host=args.metrics_host,
        inference_port=args.inference_port,
        management_port=args.management_port,
        metrics_port=args.metrics_port,
        grpc_inference_port=args.grpc_inference_port,
        grpc_management_port=args.grpc_management_port,
        initial_worker_port=args.initial_worker_port,
        is_token_required=not args.disable_token_authorization,
        token_expiration_min=args.token_expiration_min,
    )


def _check_ports(layout: Layout, plan: Plan) -> None:
    ports = (
        layout.inference_port,
        layout.management_port,
        layout.metrics_port,
        layout.grpc_inference_port,
        layout.grpc_management_port,
    )
    for port in ports:
        if ports.count(port) > 1:
            raise OperatorError(
                f"port {port} is given to more than one of the server's addresses; choose five different ones"
            )
    if layout.initial_worker_port + plan.num_workers > 65536:
        raise OperatorError(
            f"--initial-worker-port {layout.initial_worker_port} leaves no room for {plan.num_workers} workers; "
            "choose a smaller one"
        )


def _check_ours(file: Path, header: str, *, force: bool) -> None:
    if file.exists() and not file.is_file():
        raise OperatorError(f"{file} is no regular file; choose another --output")
    if force or not file.exists():
        return
    if header not in file.read_text(encoding=properties.ENCODING):
        raise OperatorError(
            f"{file} was not written by this command; choose another --output, or --force to replace it"
        )


def _print_plan(plan: Plan) -> None:
    width = max(len(f"{model.name} {model.version}") for model in plan.models)
    for model in plan.models:
        fixed = f"  ({', '.join(model.fixed)}: decided by its model-config.yaml)" if model.fixed else ""
        label = f"{model.name} {model.version}"
        print(f"  {label:{width}}  {_count(model.min_workers, 'worker')}, batches of up to {model.batch_size}{fixed}")
    over = f" (more than the {plan.cpus:g} CPUs)" if plan.num_workers > max(plan.cpus, 1) and not plan.gpus else ""
    print(f"  {_count(plan.num_workers, 'worker')} in all{over}, one queue of {plan.job_queue_size} for each model")
    print(f"  frontend: {_count(plan.netty_threads, 'thread')} + {plan.netty_client_threads}, heap {plan.heap_mb} MB")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65534")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address or a host name (TorchServe reads no other)")
    return text
