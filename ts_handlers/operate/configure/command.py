"""`ts-handlers configure`: every .mar of a folder -> one config.properties that is right for this machine."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.machine import cpu_budget
from ts_handlers.machine.memory import memory_limit
from ts_handlers.machine.topology import read_topology
from ts_handlers.operate.arguments import add_options, from_arguments
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.check import find_all
from ts_handlers.operate.check.server import Place, gather
from ts_handlers.operate.configure.config_file import make_entries
from ts_handlers.operate.configure.kubernetes import command as kubernetes
from ts_handlers.operate.configure.kubernetes.options import PodOptions, check_options
from ts_handlers.operate.configure.launcher import launcher_args
from ts_handlers.operate.configure.options import CheckOptions, Layout, MachineOptions, Options
from ts_handlers.operate.configure.outcome import check_files, config_files, machine_with, print_plan, write_files
from ts_handlers.operate.configure.plan import Plan, count_of, make_plan
from ts_handlers.operate.machine import Machine
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve.archives import read_archives
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME

_ADDRESSES = ("inference", "management", "metrics", "grpc_inference", "grpc_management")

HELP = "write config.properties and metrics.yaml for every .mar in a folder, or check such a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers configure`."""
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="folder with the .mar files")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"where to write (default: DIR/{CONFIG_NAME})")
    parser.add_argument("--force", action="store_true", help="replace a file that was not written by this command")
    for title, kind in (
        ("looking at a file instead of writing one", CheckOptions),
        ("the machine that serves", MachineOptions),
        ("what the workers get", Options),
        ("pods of Kubernetes", PodOptions),
        ("who can reach the server", Layout),
    ):
        add_options(parser.add_argument_group(title), kind)


def run(args: argparse.Namespace) -> int:
    """Decide, write both files and say what was decided; or check a file: 1 where it has problems."""
    if args.check is not None:
        return _check(args)
    if args.directory is None:
        raise OperatorError("no folder is given; give the one that holds your .mar files, or --check FILE")
    for option in ("json", "root", "model_store"):
        if getattr(args, option):
            raise OperatorError(f"--{option.replace('_', '-')} is for --check; leave it out")
    check_options(args)
    return kubernetes.run(args) if args.kubernetes is not None or args.kserve else _configure(args)


def _configure(args: argparse.Namespace) -> int:
    directory: Path = args.directory.resolve()
    output: Path = (args.output or directory / CONFIG_NAME).resolve()
    archives = read_archives(directory)
    budget = cpu_budget()
    memory_bytes = memory_limit() if args.memory_mb is None else args.memory_mb * MIB
    plan = make_plan(
        archives,
        budget.cpus if args.cpus is None else args.cpus,
        from_arguments(Options, args),
        memory_bytes=memory_bytes,
        reports=read_reports(directory, archives),
    )
    layout = from_arguments(Layout, args, model_store=directory, metrics_config=output.parent / METRICS_NAME)
    _check_ports(layout, plan)
    launcher = launcher_args(plan, budget, read_topology(budget.affinity)) if args.launcher else None
    files = config_files(output, make_entries(plan, layout, launcher))
    machine = Machine(budget, os.cpu_count() or 1, memory_bytes / MIB, python="python")
    if args.cpus is not None and not args.launcher:
        machine = machine_with(args.cpus, memory_bytes / MIB)
    warnings = check_files(files, output, machine, directory, force=args.force)
    write_files(files)
    print(f"budget: {budget.describe() if args.cpus is None else f'{args.cpus:g} CPUs (given)'}")
    print(f"memory: {memory_bytes / MIB:.0f} MiB{'' if args.memory_mb is None else ' (given)'}")
    print_plan(plan)
    for warning in warnings:
        print(warning.describe())
    print(f"wrote {output} and {layout.metrics_config}")
    print(f"next: ts-handlers serve {args.directory}" + (f" --config {args.output}" if args.output else ""))
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.directory is not None:
        raise OperatorError(
            f"--check reads the model store's folder from the file; leave {args.directory} out, or give it as "
            "--model-store"
        )
    for folder in (args.root, args.model_store):
        if folder is not None and not folder.is_dir():
            raise OperatorError(f"there is no folder {folder}; give one that has the server's files")
    place = Place(root=args.root, model_store=args.model_store, is_here=args.root is None)
    findings = find_all(gather(args.check, place=place))
    problems = sum(finding.severity == "problem" for finding in findings)
    if args.json:
        print(json.dumps({"file": str(args.check), "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            print(finding.describe())
        others = len(findings) - problems
        print(
            f"{args.check}: {count_of(problems, 'problem')}, {count_of(others, 'warning or hint', 'warnings and hints')}"
        )
    return 1 if problems else 0


def _check_ports(layout: Layout, plan: Plan) -> None:
    ports = [getattr(layout, f"{name}_port") for name in _ADDRESSES]
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
