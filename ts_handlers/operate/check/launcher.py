"""torch's CPU launcher, where the file switches it on."""

from __future__ import annotations

from collections.abc import Iterator

from ts_handlers.operate.check.finding import Finding, Rule, found, judge
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.torchserve.config import java_int

_KEY = "cpu_launcher_args"
_TORCHSERVES_OWN = ("--ninstances", "--rank")
_OPTIONS = """--ncores-per-instance --core-list --node-id --log-path --log-file-prefix --multi-instance --enable-tcmalloc
--enable-jemalloc --use-default-allocator --disable-iomp --skip-cross-node-cores --latency-mode --throughput-mode
--use-logical-core --disable-numactl --disable-taskset"""
"""The options of torch.backends.xeon.run_cpu."""


def check_launcher(server: Server) -> Iterator[Finding]:
    """Check the launcher's arguments, and whether it can be right here."""
    args = server.values.get(_KEY, "")
    if server.is_true("cpu_launcher_enable"):
        yield from judge(_RULES, server, server.facts)
        yield from _options(server, args.split(" "))
    elif args:
        yield found(f"hint: {_KEY}", args, "cpu_launcher_enable is off, so nobody reads it; remove it")


def _quota(server: Server) -> str | bool:
    budget = server.machine.budget
    is_limited = budget.quota is not None and budget.quota < len(budget.affinity)
    return is_limited and f"true, under a quota of {budget.quota:g} CPUs"


_RULES: tuple[Rule[Server], ...] = (
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
        lambda server: "" in (server.values.get(_KEY) or "-").split(" "),
        f"problem: {_KEY}: each blank more becomes an empty argument, and the launcher refuses; use single blanks",
    ),
)


def _options(server: Server, words: list[str]) -> Iterator[Finding]:
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word.replace("_", "-").partition("=")
            options[name] = value or ("" if following.startswith("--") else following)
    for name in options:
        if name in _TORCHSERVES_OWN:
            yield found(f"problem: {_KEY}", name, "TorchServe adds it for each worker itself; remove it")
        elif name not in _OPTIONS.split():
            text = "no option of torch.backends.xeon.run_cpu: workers start without it; remove it"
            yield found(f"problem: {_KEY}", name, text)
    cpus, affinity = options.get("--core-list"), server.machine.budget.affinity
    mine = server.facts["affinity"]
    if cpus is None:
        is_whole = len(affinity) == server.machine.num_node_cpus
        yield found(
            f"{'hint' if is_whole else 'problem'}: {_KEY}",
            "no --core-list",
            "the launcher takes the physical cores of the whole machine, by their numbers in lscpu"
            f"{'' if is_whole else f', and this container has CPUs {mine}'}; list the CPUs with --core-list and "
            "--ncores-per-instance",
        )
        return
    if "--ncores-per-instance" not in options:
        yield found(
            f"problem: {_KEY}", "--core-list alone", "the launcher wants --ncores-per-instance with it; add the number"
        )
    numbers = [java_int(word) for word in cpus.split(",")]
    if None in numbers or not set(numbers) <= set(affinity):
        why = "the launcher reads numbers and commas only" if None in numbers else f"this process may use {mine} only"
        yield found(f"problem: {_KEY}", f"--core-list {cpus}", f"{why}; list CPUs of the affinity mask")
    each = java_int(options.get("--ncores-per-instance", "")) or 1
    workers = max((model.workers for model in server.loaded), default=0)
    if workers * each > len(numbers):
        seen = f"{len(numbers)} CPUs, {each} for each of {workers} workers"
        text = "the last workers get none, and do not start; list more CPUs, or start fewer workers"
        yield found(f"problem: {_KEY}", seen, text)
