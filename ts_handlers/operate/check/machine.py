"""Workers, threads, memory and the JVM against what the machine gives; torch's CPU launcher, which binds workers to it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ts_handlers.build.report import BuildReport
from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.errors import OperatorError
from ts_handlers.machine.topology import format_cpu_list
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.check.finding import Finding, Rules, found, judge
from ts_handlers.operate.check.server import Server, compiled
from ts_handlers.operate.memory import JVM_OVERHEAD_MB, memory_of
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.config import java_int
from ts_handlers.operate.torchserve.models import java_cpus

_SMALL_BODY_BYTES = 64 * 1024
_OURS = ("TS_HANDLERS_WORKERS", "TS_HANDLERS_MAX_RESPONSE_SIZE")
_NEEDED = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS", *_OURS)
"""The variables a worker reads: the shell's paths, and what `ts-handlers serve` tells it."""


def check_machine(server: Server) -> Iterator[Finding]:
    """Check the file against CPUs and memory."""
    budget = server.machine.budget
    yield from judge(_RULES, server, java_cpus=java_cpus(server), ceiling=math.ceil(budget.cpus))
    if server.is_true("cpu_launcher_enable"):
        yield from judge(_LAUNCHER_RULES, server, affinity=format_cpu_list(budget.affinity))
    yield from _threads(server)
    yield from _memory(server)
    for key in ("max_request_size", "max_response_size"):
        size = server.number(key, DEFAULT_BODY_BYTES)
        if 0 < size < _SMALL_BODY_BYTES:
            yield found(f"warning: {key}", size, "it is in bytes, and a batch's own messages need some; write 6553500")
        elif server.heap_mb is not None and size > server.heap_mb * 2**20 / 8:
            text = f"eight bodies of that size fill the heap of {server.heap_mb:.0f} MiB, and the frontend ends"
            yield found(f"warning: {key}", f"{size} bytes", f"{text}; raise -Xmx in vmargs, or lower it")


def _lacks(server: Server, option: str) -> str | bool:
    """Return the arguments of the JVM where one is not among them."""
    vmargs = server.values.get("vmargs", "")
    return option not in vmargs and (vmargs or "not set")


def _hidden(server: Server) -> str | bool:
    pattern = compiled(server.values.get("blacklist_env_vars", ""))
    return ", ".join(name for name in _NEEDED if pattern is not None and pattern.fullmatch(name)) or False


_RULES: Rules[Server] = {
    "warning: models: there are {0.machine.budget.cpus:g} CPUs: workers take turns on them, and each keeps its memory; "
    "use one for each CPU": lambda server: (
        server.number("number_of_gpu", 0) == 0
        and server.num_workers > max(server.machine.budget.cpus, len(server.loaded))
        and f"{server.num_workers} workers"
    ),
    "hint: number_of_netty_threads: the frontend takes two threads for each CPU Java sees, which are {java_cpus} here; "
    "write one for each CPU of the budget, 2 to 8": lambda server: server.number("number_of_netty_threads", 0) == 0,
    "warning: vmargs: Java may count the node's {0.machine.num_node_cpus} CPUs instead of {0.machine.budget.cpus:g}, for "
    "its own threads and for the default number of workers; add -XX:ActiveProcessorCount={ceiling}": lambda server: (
        server.machine.budget.cpus < server.num_cpus and _lacks(server, "-XX:ActiveProcessorCount=")
    ),
    "warning: vmargs: without -Xmx Java's heap may grow to a quarter of the memory, which the workers need; add "
    "-Xmx512m": lambda server: server.heap_mb is None and _lacks(server, "MaxRAMPercentage"),
    "warning: vmargs: its heap of {0.heap_mb:.0f} MiB is more than half of {0.machine.memory_mb:.0f}; an eighth is "
    "enough": lambda server: (server.heap_mb or 0) > server.machine.memory_mb / 2,
    "warning: prefer_direct_buffer: request bodies lie outside the heap then, in as much memory again as -Xmx; write "
    "false, or add -XX:MaxDirectMemorySize to vmargs": lambda server: (
        server.is_true("prefer_direct_buffer") and bool(_lacks(server, "MaxDirectMemorySize"))
    ),
    "hint: number_of_gpu: TorchServe spreads workers over every GPU it finds; write the number, or 0": lambda server: (
        server.machine.gpus != 0 and not server.is_written("number_of_gpu") and "not set"
    ),
    "warning: number_of_gpu: TorchServe finds {0.machine.gpus} here, and goes by that; write {0.machine.gpus}, if this "
    "machine is like the one that serves": lambda server: (
        (java_int(asked := server.text.values.get("number_of_gpu", "")) or 0) > server.number("number_of_gpu", 0)
        and asked
    ),
    "warning: blacklist_env_vars: it keeps {seen} from the workers, which need them; make it narrower": _hidden,
    "hint: cpu_launcher_args: cpu_launcher_enable is off, so nobody reads it; remove it": lambda server: (
        bool(server.values.get("cpu_launcher_args")) and not server.is_true("cpu_launcher_enable")
    ),
}


_LAUNCHER_RULES: Rules[Server] = {
    "problem: cpu_launcher_args: each blank more becomes an empty argument, and the launcher refuses; use single "
    "blanks": lambda server: "" in (server.values.get("cpu_launcher_args") or "-").split(" "),
    "problem: cpu_launcher_enable: it divides the CPUs for each model alone, so that they share the first ones and leave "
    "others idle; write false": lambda server: len(server.loaded) > 1 and f"true, with {len(server.loaded)} models",
    "hint: cpu_launcher_enable: a change of the number of workers ends and starts all of the model's workers, not only "
    "the one more or less; keep the number of workers, or write false": lambda _: True,
    "warning: cpu_launcher_enable: it knows nothing of quotas: every container of the node pins itself to the same first "
    "CPUs; write false, or give the container CPUs of its own": lambda server: (
        (server.machine.budget.quota or math.inf) < len(server.machine.budget.affinity)
        and f"true, under a quota of {server.machine.budget.quota:g} CPUs"
    ),
    "problem: cpu_launcher_enable: TorchServe tries the launcher with it, and workers fail without it; put the serving "
    "environment's bin folder first on PATH": lambda server: (
        server.machine.python is None and "true, and no `python` on PATH"
    ),
    "problem: cpu_launcher_args: the launcher takes the physical cores of the whole machine, by their numbers in lscpu, "
    "and this container has CPUs {affinity}; list the CPUs with --core-list and --ncores-per-instance": lambda server: (
        "--core-list" not in server.values.get("cpu_launcher_args", "").replace("_", "-")
        and len(server.machine.budget.affinity) < server.machine.num_node_cpus
        and "no --core-list"
    ),
}


def _threads(server: Server) -> Iterator[Finding]:
    cpus, count = server.machine.budget.cpus, server.num_workers
    text = f"{count} workers with {{}} threads are more than {cpus:g} CPUs; {{}}"
    for model in server.loaded:
        threads = _handler_threads(model.archive)
        if count <= max(cpus, len(server.loaded)) and threads * count > max(cpus, count):
            seen = f"handler.cpu.threads {threads} in its model-config.yaml"
            remedy = "leave it out: each worker takes its share"
            yield found(f"warning: {model.archive.path.name}", seen, text.format(threads, remedy))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = server.environ.get(name, "")
        if count and (java_int(value) or 0) * count > max(cpus, count):
            yield found(f"warning: {name}", value, text.format(value, "unset it"))


def _handler_threads(archive: Archive) -> int:
    value: object = archive.settings
    for key in ("handler", "cpu", "threads"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) else 0


def _memory(server: Server) -> Iterator[Finding]:
    store, limit = server.store, server.machine.memory_mb
    try:
        reports = read_reports(store.folder, store.archives.values()) if store.folder and store.exists else {}
    except OperatorError as error:
        why, _, remedy = str(error).partition("; ")
        yield found("warning: build reports", why, f"it is of no use where it is; {remedy}")
        return
    keys = [(model.archive.model_name, model.version) for model in server.loaded]
    rss = [reports.get(key, BuildReport()).rss_mb or 0.0 for key in keys]
    workers_mb = memory_of([model.workers for model in server.loaded], rss)
    needed = workers_mb + (server.heap_mb or limit / 4) + JVM_OVERHEAD_MB
    if any(rss) and needed > limit:
        text = f"with the frontend they take {needed:.0f} MiB by their build reports, and there are {limit:.0f}"
        text = f"{text}: the kernel would end one; use fewer workers, or give more memory"
        yield found("problem: models", f"{server.num_workers} workers", text)
