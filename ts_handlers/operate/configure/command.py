"""`ts-handlers configure`: every .mar of a folder -> one config.properties that is right for this machine."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ts_handlers.cpu import CpuBudget, cpu_budget
from ts_handlers.cpu.topology import Core, read_topology
from ts_handlers.errors import OperatorError
from ts_handlers.memory import memory_limit
from ts_handlers.operate.arguments import from_arguments
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.configure.allocators import Preloads, advice, find_preloads
from ts_handlers.operate.configure.config_file import HEADER, Layout, make_entries
from ts_handlers.operate.configure.kubernetes import command as kubernetes
from ts_handlers.operate.configure.kubernetes.checks import check_without_pods
from ts_handlers.operate.configure.launcher import Launch, plan_launch, probe_launcher
from ts_handlers.operate.configure.options import add_arguments
from ts_handlers.operate.configure.outcome import check_ours, own_findings, write_files
from ts_handlers.operate.configure.plan import Options, Plan, make_plan
from ts_handlers.operate.configure.summary import count_of, print_plan
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.archives import Archive, read_archives
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.subject import Machine, gather

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write config.properties and metrics.yaml for every .mar in a folder, or check such a file"


def run(args: argparse.Namespace) -> int:
    """Decide, write both files and say what was decided; or check a file: 1 where it has problems."""
    if args.check is not None:
        return _check(args)
    if args.directory is None:
        raise OperatorError("no folder is given; give the one that holds your .mar files, or --check FILE")
    if args.json:
        raise OperatorError("--json is for --check; leave it out")
    if args.kubernetes is not None or args.kserve:
        return kubernetes.run(args)
    check_without_pods(args)
    return _configure(args)


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
    layout = from_arguments(
        Layout,
        args,
        model_store=directory,
        metrics_config=output.parent / METRICS_NAME,
        is_token_required=not args.disable_token_authorization,
    )
    _check_ports(layout, plan)
    cores = read_topology(budget.affinity)
    preloads = find_preloads({core.node for core in cores})
    launch = _launch(plan, budget, cores, preloads) if args.launcher else None
    preload = "" if args.cpus else advice(preloads, f"ts-handlers serve {args.directory}", is_torch=_is_torch(archives))
    check_ours(output, HEADER, force=args.force)
    check_ours(layout.metrics_config, METRICS_HEADER, force=args.force)
    text = properties.render(make_entries(plan, layout, launch=launch, preload=preload), header=HEADER)
    metrics_text = metrics_yaml()
    findings = own_findings(output, text, metrics_text, _machine(args, budget, memory_bytes))
    write_files({layout.metrics_config: metrics_text, output: text})
    print(f"budget: {budget.describe() if args.cpus is None else f'{args.cpus:g} CPUs (given)'}")
    print(f"memory: {memory_bytes / MIB:.0f} MiB{'' if args.memory_mb is None else ' (given)'}")
    print_plan(plan)
    for warning in launch.warnings if launch else ():
        print(f"warning: {warning}")
    for finding in findings:
        print(finding.describe())
    print(f"wrote {output} and {layout.metrics_config}")
    print(f"next: ts-handlers serve {args.directory}" + (f" --config {args.output}" if args.output else ""))
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.directory is not None:
        raise OperatorError(f"--check reads the model store's folder from the file; leave {args.directory} out")
    findings = find_traps(gather(args.check))
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


def _machine(args: argparse.Namespace, budget: CpuBudget, memory_bytes: int) -> Machine:
    """Return the machine that serves: this one, or what --cpus says of another."""
    if args.cpus is not None and not args.launcher:
        count = math.ceil(args.cpus)
        budget = CpuBudget(tuple(range(count)), None if count == args.cpus else args.cpus)
    return Machine(budget, os.cpu_count() or 1, memory_bytes / MIB, python="python")


def _launch(plan: Plan, budget: CpuBudget, cores: Sequence[Core], preloads: Preloads) -> Launch:
    launch = plan_launch(plan, budget, cores, preloads)
    probe_launcher(launch.args)
    return launch


def _is_torch(archives: Sequence[Archive]) -> bool:
    """Say whether a model runs on torch itself, as far as the archives say."""
    handlers = [(archive.settings or {}).get("handler") for archive in archives]
    runtimes = [handler.get("runtime") for handler in handlers if isinstance(handler, dict)]
    return any(isinstance(runtime, dict) and runtime.get("backend") == "torch" for runtime in runtimes)


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
