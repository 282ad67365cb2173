"""Workers, threads, memory and the JVM against what the machine gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ts_handlers.config import DEFAULT_BODY_BYTES
from ts_handlers.operate.memory import JVM_OVERHEAD_MB, memory_of
from ts_handlers.operate.torchserve.config import java_int
from ts_handlers.operate.torchserve.models import LoadedModel, java_cpus, loaded_models
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Subject, compiled

_SMALL_BODY_BYTES = 64 * 1024
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_NEEDED_VARIABLES = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "TS_HANDLERS_WORKERS",
    "TS_HANDLERS_MAX_RESPONSE_SIZE",
    "OMP_NUM_THREADS",
)
"""What a worker reads: the shell's paths, and what `ts-handlers serve` tells it."""


def check_machine(subject: Subject) -> Iterator[Finding]:
    """Check the file against CPUs and memory."""
    loaded = loaded_models(subject)
    yield from _workers(subject, loaded)
    yield from _threads(subject, loaded)
    yield from _jvm(subject)
    yield from _memory(subject, loaded)
    yield from _bodies(subject)
    yield from _gpus(subject)
    yield from _store(subject)
    yield from _blacklist(subject)


def _workers(subject: Subject, loaded: Sequence[LoadedModel]) -> Iterator[Finding]:
    cpus = subject.machine.budget.cpus
    count = sum(model.workers for model in loaded)
    if subject.number("number_of_gpu", 0) == 0 and count > max(cpus, len(loaded)):
        yield Finding(
            "warning",
            "models",
            f"{count} workers",
            f"there are {cpus:g} CPUs: workers take turns on them, and each keeps its memory",
            f"use {max(int(cpus), len(loaded), 1)}",
        )


def _threads(subject: Subject, loaded: Sequence[LoadedModel]) -> Iterator[Finding]:
    cpus = subject.machine.budget.cpus
    count = sum(model.workers for model in loaded)
    for model in loaded:
        threads = _handler_threads(model.archive.settings)
        if threads is not None and count <= max(cpus, len(loaded)) and threads * count > max(cpus, count):
            yield Finding(
                "warning",
                model.archive.path.name,
                f"handler.cpu.threads {threads} in its model-config.yaml",
                f"{count} workers with {threads} threads are more than {cpus:g} CPUs",
                "leave it out: each worker takes its share",
            )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        text = subject.environ.get(name, "")
        if count and (java_int(text) or 0) * count > max(cpus, count):
            yield Finding(
                "warning",
                name,
                text,
                f"{count} workers with {text} threads are more than {cpus:g} CPUs",
                "unset it",
            )
    netty = subject.number("number_of_netty_threads", 0)
    if netty == 0:
        yield Finding(
            "hint",
            "number_of_netty_threads",
            subject.values.get("number_of_netty_threads", "not set"),
            f"the frontend takes two threads for each CPU Java sees, here {2 * java_cpus(subject)}",
            "write one for each CPU of the budget, 2 to 8",
        )


def _handler_threads(settings: Mapping[str, Any] | None) -> int | None:
    handler = (settings or {}).get("handler")
    cpu = handler.get("cpu") if isinstance(handler, dict) else None
    threads = cpu.get("threads") if isinstance(cpu, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) else None


def _jvm(subject: Subject) -> Iterator[Finding]:
    vmargs = subject.values.get("vmargs", "")
    machine = subject.machine
    if "-XX:ActiveProcessorCount=" not in vmargs and machine.budget.cpus < machine.num_node_cpus:
        yield Finding(
            "warning",
            "vmargs",
            vmargs or "not set",
            f"Java may count the node's {machine.num_node_cpus} CPUs instead of {machine.budget.cpus:g}, for its own "
            "threads and for the default number of workers",
            f"add -XX:ActiveProcessorCount={max(1, round(machine.budget.cpus))}",
        )
    heap = heap_mb(vmargs)
    if heap is None and "MaxRAMPercentage" not in vmargs:
        yield Finding(
            "warning",
            "vmargs",
            vmargs or "not set",
            "without -Xmx Java's heap may grow to a quarter of the memory, which the workers need",
            "add -Xmx512m",
        )
    if subject.is_true("prefer_direct_buffer") and "MaxDirectMemorySize" not in vmargs:
        yield Finding(
            "warning",
            "prefer_direct_buffer",
            "true",
            "request bodies lie outside the heap then, in as much memory again as -Xmx",
            "write false, or add -XX:MaxDirectMemorySize to vmargs",
        )


def heap_mb(vmargs: str) -> float | None:
    """Return what -Xmx says, in MiB; the last one counts."""
    found = re.findall(r"-Xmx([0-9]{1,15})([kKmMgGtT]?)(?=\s|$)", vmargs)
    return int(found[-1][0]) * _UNITS[found[-1][1].lower()] / 2**20 if found else None


def _memory(subject: Subject, loaded: Sequence[LoadedModel]) -> Iterator[Finding]:
    heap = heap_mb(subject.values.get("vmargs", ""))
    limit = subject.machine.memory_mb
    if heap is not None and heap > limit / 2:
        yield Finding(
            "warning",
            "vmargs",
            f"-Xmx of {heap:.0f} MiB",
            f"it is more than half of {limit:.0f}",
            "an eighth is enough",
        )
    rss = [_rss(subject, model) for model in loaded]
    needed = memory_of([model.workers for model in loaded], rss) + (heap or limit / 4) + JVM_OVERHEAD_MB
    if any(rss) and needed > limit:
        yield Finding(
            "problem",
            "models",
            f"{sum(model.workers for model in loaded)} workers",
            f"with the frontend they take {needed:.0f} MiB by their build reports, and there are {limit:.0f}: the kernel "
            "would end one",
            "use fewer workers, or give more memory",
        )


def _rss(subject: Subject, model: LoadedModel) -> float:
    report = subject.reports.get((model.archive.model_name, model.version))
    return report.rss_mb or 0.0 if report else 0.0


def _bodies(subject: Subject) -> Iterator[Finding]:
    heap = heap_mb(subject.values.get("vmargs", ""))
    for key in ("max_request_size", "max_response_size"):
        size = subject.number(key, DEFAULT_BODY_BYTES)
        if 0 < size < _SMALL_BODY_BYTES:
            yield Finding(
                "warning", key, f"{size} bytes", "it is in bytes, and a batch's own messages need some", "write 6553500"
            )
        elif heap is not None and size > heap * 2**20 / 8:
            yield Finding(
                "warning",
                key,
                f"{size} bytes",
                f"eight bodies of that size fill the heap of {heap:.0f} MiB, and the frontend ends",
                "raise -Xmx in vmargs, or lower it",
            )


def _gpus(subject: Subject) -> Iterator[Finding]:
    if "number_of_gpu" not in subject.values:
        yield Finding(
            "hint",
            "number_of_gpu",
            "not set",
            "TorchServe spreads workers over every GPU it finds",
            "write the number, or 0",
        )
    if subject.is_true("ipex_enable") or subject.is_true("ipex_gpu_enable"):
        yield Finding(
            "hint",
            "ipex_enable",
            "true",
            "only the stock base handler reads it; ts_handlers have a setting",
            "remove it",
        )


def _store(subject: Subject) -> Iterator[Finding]:
    named, store = subject.values.get("model_store"), subject.store
    if named is None:
        yield Finding(
            "warning", "model_store", "not set", "`torchserve` does not start without --model-store", "write its path"
        )
        return
    if not named.startswith("/"):
        yield Finding(
            "warning",
            "model_store",
            named,
            "it counts from the folder the server is started in, not from this file",
            "write an absolute path",
        )
    if not store.exists:
        yield Finding(
            "problem", "model_store", named, "there is no such folder, and nothing is loaded", "correct the path"
        )


def _blacklist(subject: Subject) -> Iterator[Finding]:
    pattern = compiled(subject.values.get("blacklist_env_vars", ""))
    if pattern is None:  # reported as a value that cannot be read
        return
    hidden = [name for name in _NEEDED_VARIABLES if pattern.fullmatch(name)]
    if hidden:
        yield Finding(
            "warning",
            "blacklist_env_vars",
            pattern.pattern,
            f"it keeps {', '.join(hidden)} from the workers, which need them",
            "make the pattern narrower",
        )
