"""Workers, threads, memory and the JVM against what the machine gives; torch's CPU launcher, which binds workers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ts_handlers.build.report import BuildReport
from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.errors import OperatorError
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.check.finding import Finding, Rule, found, judge
from ts_handlers.operate.check.server import Server, compiled
from ts_handlers.operate.memory import JVM_OVERHEAD_MB, memory_of
from ts_handlers.operate.torchserve.config import java_int

_SMALL_BODY_BYTES = 64 * 1024
_OURS = ("TS_HANDLERS_WORKERS", "TS_HANDLERS_MAX_RESPONSE_SIZE")
_NEEDED = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS", *_OURS)
"""The variables a worker reads: the shell's paths, and what `ts-handlers serve` tells it."""

_LAUNCHER = "cpu_launcher_args"
_TORCHSERVES_OWN = ("--ninstances", "--rank")
_LAUNCHER_OPTIONS = """--ncores-per-instance --core-list --node-id --log-path --log-file-prefix --multi-instance
--enable-tcmalloc --enable-jemalloc --use-default-allocator --disable-iomp --skip-cross-node-cores --latency-mode
--throughput-mode --use-logical-core --disable-numactl --disable-taskset"""
"""The options of torch.backends.xeon.run_cpu."""


def check_machine(server: Server) -> Iterator[Finding]:
    """Check the file against CPUs and memory."""
    yield from judge(_RULES, server, server.facts)
    yield from _threads(server)
    yield from _memory(server)
    yield from _launcher(server)
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


def _crowd(server: Server) -> str | bool:
    most = max(server.machine.budget.cpus, len(server.loaded))
    is_crowded = server.number("number_of_gpu", 0) == 0 and server.num_workers > most
    return is_crowded and f"{server.num_workers} workers"


def _hidden(server: Server) -> str | bool:
    pattern = compiled(server.values.get("blacklist_env_vars", ""))
    return ", ".join(name for name in _NEEDED if pattern is not None and pattern.fullmatch(name)) or False


def _missing_gpus(server: Server) -> str | bool:
    asked = server.text.values.get("number_of_gpu", "")
    return (java_int(asked) or 0) > server.number("number_of_gpu", 0) and asked


_RULES: tuple[Rule[Server], ...] = (
    (
        _crowd,
        "warning: models: there are {cpus} CPUs: workers take turns on them, and each keeps its memory; use one for "
        "each CPU",
    ),
    (
        lambda server: server.number("number_of_netty_threads", 0) == 0,
        "hint: number_of_netty_threads: the frontend takes two threads for each CPU Java sees, which are {java_cpus} "
        "here; write one for each CPU of the budget, 2 to 8",
    ),
    (
        lambda server: server.machine.budget.cpus < server.num_cpus and _lacks(server, "-XX:ActiveProcessorCount="),
        "warning: vmargs: Java may count the node's {node_cpus} CPUs instead of {cpus}, for its own threads and for "
        "the default number of workers; add -XX:ActiveProcessorCount={round_cpus}",
    ),
    (
        lambda server: server.heap_mb is None and _lacks(server, "MaxRAMPercentage"),
        "warning: vmargs: without -Xmx Java's heap may grow to a quarter of the memory, which the workers need; add "
        "-Xmx512m",
    ),
    (
        lambda server: (server.heap_mb or 0) > server.machine.memory_mb / 2,
        "warning: vmargs: its heap of {heap} MiB is more than half of {memory}; an eighth is enough",
    ),
    (
        lambda server: server.is_true("prefer_direct_buffer") and bool(_lacks(server, "MaxDirectMemorySize")),
        "warning: prefer_direct_buffer: request bodies lie outside the heap then, in as much memory again as -Xmx; "
        "write false, or add -XX:MaxDirectMemorySize to vmargs",
    ),
    (
        lambda server: server.machine.gpus != 0 and not server.is_written("number_of_gpu") and "not set",
        "hint: number_of_gpu: TorchServe spreads workers over every GPU it finds; write the number, or 0",
    ),
    (
        _missing_gpus,
        "warning: number_of_gpu: TorchServe finds {gpus} here, and goes by that; write {gpus}, if this machine is "
        "like the one that serves",
    ),
    (_hidden, "warning: blacklist_env_vars: it keeps {seen} from the workers, which need them; make it narrower"),
)


def _threads(server: Server) -> Iterator[Finding]:
    cpus, count = server.machine.budget.cpus, server.num_workers
    text = f"{count} workers with {{}} threads are more than {cpus:g} CPUs; {{}}"
    for model in server.loaded:
        threads = _handler_threads(model.archive.settings)
        if threads is not None and count <= max(cpus, len(server.loaded)) and threads * count > max(cpus, count):
            seen = f"handler.cpu.threads {threads} in its model-config.yaml"
            remedy = "leave it out: each worker takes its share"
            yield found(f"warning: {model.archive.path.name}", seen, text.format(threads, remedy))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = server.environ.get(name, "")
        if count and (java_int(value) or 0) * count > max(cpus, count):
            yield found(f"warning: {name}", value, text.format(value, "unset it"))


def _handler_threads(settings: Mapping[str, Any] | None) -> int | None:
    handler = (settings or {}).get("handler")
    cpu = handler.get("cpu") if isinstance(handler, dict) else None
    threads = cpu.get("threads") if isinstance(cpu, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) else None


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
    needed = (
        memory_of([model.workers for model in server.loaded], rss) + (server.heap_mb or limit / 4) + JVM_OVERHEAD_MB
    )
    if any(rss) and needed > limit:
        text = f"with the frontend they take {needed:.0f} MiB by their build reports, and there are {limit:.0f}"
        text = f"{text}: the kernel would end one; use fewer workers, or give more memory"
        yield found("problem: models", f"{server.num_workers} workers", text)


def _launcher(server: Server) -> Iterator[Finding]:
    """Check the arguments of torch's CPU launcher, and whether it can be right here."""
    args = server.values.get(_LAUNCHER, "")
    if server.is_true("cpu_launcher_enable"):
        yield from judge(_LAUNCHER_RULES, server, server.facts)
        yield from _launcher_options(server, args.split(" "))
    elif args:
        yield found(f"hint: {_LAUNCHER}", args, "cpu_launcher_enable is off, so nobody reads it; remove it")


def _quota(server: Server) -> str | bool:
    budget = server.machine.budget
    is_limited = budget.quota is not None and budget.quota < len(budget.affinity)
    return is_limited and f"true, under a quota of {budget.quota:g} CPUs"


_LAUNCHER_RULES: tuple[Rule[Server], ...] = (
    (
        lambda server: len(server.loaded) > 1 and f"true, with {len(server.loaded)} models",
        "problem: cpu_launcher_enable: it divides the CPUs for each model alone, so that they share the first ones "
        "and leave others idle; write false",
    ),
    (
        lambda server: server.is_true("cpu_launcher_enable"),
        "hint: cpu_launcher_enable: a change of the number of workers ends and starts all of the model's workers, not "
        "only the one more or less; keep the number of workers, or write false",
    ),
    (
        _quota,
        "warning: cpu_launcher_enable: it knows nothing of quotas: every container of the node pins itself to the "
        "same first CPUs; write false, or give the container CPUs of its own",
    ),
    (
        lambda server: server.machine.python is None and "true, and no `python` on PATH",
        "problem: cpu_launcher_enable: TorchServe tries the launcher with it, and workers fail without it; put the "
        "serving environment's bin folder first on PATH",
    ),
    (
        lambda server: "" in (server.values.get(_LAUNCHER) or "-").split(" "),
        f"problem: {_LAUNCHER}: each blank more becomes an empty argument, and the launcher refuses; use single blanks",
    ),
)


def _launcher_options(server: Server, words: list[str]) -> Iterator[Finding]:
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word.replace("_", "-").partition("=")
            options[name] = value or ("" if following.startswith("--") else following)
    for name in options:
        if name in _TORCHSERVES_OWN:
            yield found(f"problem: {_LAUNCHER}", name, "TorchServe adds it for each worker itself; remove it")
        elif name not in _LAUNCHER_OPTIONS.split():
            text = "no option of torch.backends.xeon.run_cpu: workers start without it; remove it"
            yield found(f"problem: {_LAUNCHER}", name, text)
    cpus, affinity = options.get("--core-list"), server.machine.budget.affinity
    mine = server.facts["affinity"]
    if cpus is None:
        is_whole = len(affinity) == server.machine.num_node_cpus
        yield found(
            f"{'hint' if is_whole else 'problem'}: {_LAUNCHER}",
            "no --core-list",
            "the launcher takes the physical cores of the whole machine, by their numbers in lscpu"
            f"{'' if is_whole else f', and this container has CPUs {mine}'}; list the CPUs with --core-list and "
            "--ncores-per-instance",
        )
        return
    if "--ncores-per-instance" not in options:
        yield found(
            f"problem: {_LAUNCHER}",
            "--core-list alone",
            "the launcher wants --ncores-per-instance with it; add the number",
        )
    numbers = [java_int(word) for word in cpus.split(",")]
    if None in numbers or not set(numbers) <= set(affinity):
        why = "the launcher reads numbers and commas only" if None in numbers else f"this process may use {mine} only"
        yield found(f"problem: {_LAUNCHER}", f"--core-list {cpus}", f"{why}; list CPUs of the affinity mask")
    each = java_int(options.get("--ncores-per-instance", "")) or 1
    workers = max((model.workers for model in server.loaded), default=0)
    if workers * each > len(numbers):
        seen = f"{len(numbers)} CPUs, {each} for each of {workers} workers"
        text = "the last workers get none, and do not start; list more CPUs, or start fewer workers"
        yield found(f"problem: {_LAUNCHER}", seen, text)
