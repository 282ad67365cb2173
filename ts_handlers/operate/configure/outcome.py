"""What `configure` is about to write: checked as any file is, put in the place of what it wrote before, and told."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.operate.check import find_all
from ts_handlers.operate.check.finding import Finding
from ts_handlers.operate.check.server import Place, gather
from ts_handlers.operate.configure.config_file import HEADER
from ts_handlers.operate.configure.plan import Plan, count_of
from ts_handlers.operate.machine import Machine
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.config import METRICS_NAME

Files = Mapping[Path, tuple[str, str]]
"""Files to write: each one's text, and the line in it that says that this command wrote it."""


def config_files(config: Path, entries: Iterable[properties.Entry]) -> Files:
    """Return a config.properties and the metrics.yaml beside it."""
    text = properties.render(entries, header=HEADER)
    return {config.with_name(METRICS_NAME): (metrics_yaml(), METRICS_HEADER), config: (text, HEADER)}


def check_files(files: Files, config: Path, machine: Machine, model_store: Path, *, force: bool) -> list[Finding]:
    """Check that files may be replaced, and read back the configuration; return what is worth a warning.

    Args:
        files: What would be written.
        config: Which of them is config.properties.
        machine: The machine that serves.
        model_store: Where the archives are on this one.
        force: Whether files that this command did not write may be replaced.

    Raises:
        OperatorError: A file may not be replaced, or the configuration has a problem: of an archive, or else a bug of
            this command.
    """
    for file, (_, header) in files.items():
        if file.exists() and not file.is_file():
            raise OperatorError(f"{file} is no regular file; choose another --output")
        if file.exists() and not force and header not in file.read_text(encoding=properties.ENCODING):
            raise OperatorError(
                f"{file} was not written by this command; choose another --output, or --force to replace it"
            )
    environ = {name: value for name, value in os.environ.items() if name != "TS_CONFIG_FILE"}  # serve leaves it out
    place, metrics_text = Place(model_store=model_store, is_here=False), files[config.with_name(METRICS_NAME)][0]
    server = gather(config, environ, machine, place, text=files[config][0], metrics_text=metrics_text)
    findings = find_all(server)
    problems = [finding for finding in findings if finding.severity == "problem"]
    for problem in problems:
        if problem.key in server.store.archives:
            raise OperatorError(f"{problem.key}: {problem.seen}: {problem.why}; {problem.remedy}")
    if problems:
        raise OperatorError(
            f"what configure decided does not pass its own check ({problems[0].describe()}): this is a bug of "
            f"ts-handlers, please report it; {config} is left as it was"
        )
    return [finding for finding in findings if finding.severity == "warning"]


def machine_with(cpus: float, memory_mb: float) -> Machine:
    """Return a machine of so many CPUs, which serves what this one configures."""
    count = math.ceil(cpus)
    budget = CpuBudget(tuple(range(count)), None if count == cpus else cpus)
    return Machine(budget, max(count, os.cpu_count() or 1), memory_mb, python="python")


def write_files(files: Files) -> None:
    """Write files, each in one step.

    Raises:
        OperatorError: One cannot be written.
    """
    for file, (text, _) in files.items():
        with replacing(file) as part:
            part.write_text(text, encoding=properties.ENCODING)


def print_plan(plan: Plan) -> None:
    """Print workers, queue and frontend, and why there are so many workers."""
    width = max(len(model.label) for model in plan.models)
    for model in plan.models:
        fixed = f"  ({', '.join(model.fixed)}: decided by its model-config.yaml)" if model.fixed else ""
        workers = count_of(model.min_workers, "worker")
        print(f"  {model.label:{width}}  {workers}, batches of up to {model.batch_size}{fixed}")
    over = f" (more than the {plan.cpus:g} CPUs)" if plan.num_workers > max(plan.cpus, 1) and not plan.gpus else ""
    print(
        f"  {count_of(plan.num_workers, 'worker')} in all{over}, {count_of(plan.threads, 'thread')} each, one queue of "
        f"{plan.job_queue_size} for each model"
    )
    for line in plan.reason.splitlines():
        print(f"    {line}")
    threads = f"{count_of(plan.netty_threads, 'thread')} + {plan.netty_client_threads}"
    print(f"  frontend: {threads}, heap {plan.memory.heap_mb} MB")
