"""`ts-handlers configure`: every .mar of a folder -> one config.properties that is right for this machine."""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ts_handlers.cpu import CpuBudget, cpu_budget
from ts_handlers.cpu.topology import Core, read_topology
from ts_handlers.errors import OperatorError
from ts_handlers.memory import memory_limit
from ts_handlers.operate import properties
from ts_handlers.operate.archives import Archive, read_archives
from ts_handlers.operate.configure.allocators import Preloads, advice, find_preloads
from ts_handlers.operate.configure.build_report import read_reports
from ts_handlers.operate.configure.config_file import CONFIG_NAME, HEADER, METRICS_NAME, Layout, make_entries
from ts_handlers.operate.configure.launcher import Launch, plan_launch, probe_launcher
from ts_handlers.operate.configure.options import add_arguments
from ts_handlers.operate.configure.plan import Options, Plan, make_plan
from ts_handlers.operate.configure.shares import MIB
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Machine, gather, gather_text

__all__ = ["HELP", "add_arguments", "run", "write_text"]

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
        _options(args),
        memory_bytes=memory_bytes,
        reports=read_reports(directory, archives),
    )
    layout = _layout(args, directory, output.parent / METRICS_NAME)
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
    write_text(layout.metrics_config, metrics_text)
    write_text(output, text)
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


def write_text(file: Path, text: str) -> None:
    """Replace a file in one step, so that nobody ever reads half of it.

    Raises:
        OperatorError: Its folder does not exist or may not be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding=properties.ENCODING, dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as temporary:
            unfinished = Path(temporary.name)
            try:
                temporary.write(text)
                temporary.flush()
                unfinished.chmod(0o666 & ~_umask())
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(
            f"cannot write {file}: {error.strerror or error}; choose another place with --output"
        ) from error


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


def _options(args: argparse.Namespace) -> Options:
    return Options(
        profile=args.profile,
        workers=args.workers,
        batch_size=args.batch_size,
        max_batch_delay_ms=args.max_batch_delay_ms,
        response_timeout_s=args.response_timeout_s,
        startup_timeout_s=args.startup_timeout_s,
        gpus=args.gpus,
    )


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
