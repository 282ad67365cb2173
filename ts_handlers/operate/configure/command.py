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
from ts_handlers.operate import properties
from ts_handlers.operate.archives import Archive, read_archives
from ts_handlers.operate.arguments import from_arguments
from ts_handlers.operate.configure.allocators import Preloads, advice, find_preloads
from ts_handlers.operate.configure.build_report import read_reports
from ts_handlers.operate.configure.config_file import CONFIG_NAME, HEADER, METRICS_NAME, Layout, make_entries
from ts_handlers.operate.configure.launcher import Launch, plan_launch, probe_launcher
from ts_handlers.operate.configure.options import add_arguments
from ts_handlers.operate.configure.plan import Options, Plan, make_plan
from ts_handlers.operate.configure.shares import MIB
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Machine, gather, gather_text

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
    _check_ours(output, HEADER, force=args.force)
    _check_ours(layout.metrics_config, METRICS_HEADER, force=args.force)
    text = properties.render(make_entries(plan, layout, launch=launch, preload=preload), header=HEADER)
    metrics_text = metrics_yaml()
    findings = _own_findings(output, text, metrics_text, _machine(args, budget, memory_bytes))
    for file, content in ((layout.metrics_config, metrics_text), (output, text)):
        with replacing(file) as part:
            part.write_text(content, encoding=properties.ENCODING)
    print(f"budget: {budget.describe() if args.cpus is None else f'{args.cpus:g} CPUs (given)'}")
    print(f"memory: {memory_bytes / MIB:.0f} MiB{'' if args.memory_mb is None else ' (given)'}")
    _print_plan(plan)
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
        print(f"{args.check}: {_count(problems, 'problem')}, {_count(others, 'warning or hint', 'warnings and hints')}")
    return 1 if problems else 0


def _own_findings(output: Path, text: str, metrics_text: str, machine: Machine) -> list[Finding]:
    """Read back what would be written; return what is worth a warning.

    Raises:
        OperatorError: It has a problem: of an archive, or else a bug of this command.
    """
    environ = {name: value for name, value in os.environ.items() if name != "TS_CONFIG_FILE"}  # serve leaves it out
    subject = gather_text(output, text, environ, machine, metrics_text=metrics_text)
    findings = find_traps(subject)
    problems = [finding for finding in findings if finding.severity == "problem"]
    for problem in problems:
        if problem.key in subject.store.archives:
            raise OperatorError(f"{problem.key}: {problem.seen}: {problem.why}; {problem.remedy}")
    if problems:
        raise OperatorError(
            f"what configure decided does not pass its own check ({problems[0].describe()}): this is a bug of "
            f"ts-handlers, please report it; {output} is left as it was"
        )
    return [finding for finding in findings if finding.severity == "warning"]


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
    threads = _count(plan.workers.threads, "thread")
    print(
        f"  {_count(plan.num_workers, 'worker')} in all{over}, {threads} each, one queue of {plan.job_queue_size} for "
        "each model"
    )
    for line in plan.workers.reason.splitlines():
        print(f"    {line}")
    print(f"  frontend: {_count(plan.netty_threads, 'thread')} + {plan.netty_client_threads}, heap {plan.heap_mb} MB")


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
