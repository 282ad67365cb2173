"""torch's CPU launcher, where the file switches it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ts_handlers.cpu.topology import format_cpu_list
from ts_handlers.operate.torchserve.config import java_int
from ts_handlers.operate.torchserve.models import LoadedModel, loaded_models
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Subject

_KEY = "cpu_launcher_args"
_WITH_VALUE = ("--ncores-per-instance", "--core-list", "--node-id", "--log-path", "--log-file-prefix")
_TORCHSERVES_OWN = ("--ninstances", "--rank")
_SWITCHES = (
    "--multi-instance",
    "--enable-tcmalloc",
    "--enable-jemalloc",
    "--use-default-allocator",
    "--disable-iomp",
    "--skip-cross-node-cores",
    "--latency-mode",
    "--throughput-mode",
    "--use-logical-core",
    "--disable-numactl",
    "--disable-taskset",
)


def check_launcher(subject: Subject) -> Iterator[Finding]:
    """Check the launcher's arguments, and whether it can be right here."""
    args = subject.values.get(_KEY, "")
    if not subject.is_true("cpu_launcher_enable"):
        if args:
            yield Finding("hint", _KEY, args, "cpu_launcher_enable is off, so nobody reads it", "remove it")
        return
    loaded = loaded_models(subject)
    if len(loaded) > 1:
        yield Finding(
            "problem",
            "cpu_launcher_enable",
            f"true, with {len(loaded)} models",
            "it divides the CPUs for each model alone, so that they share the first ones and leave others idle",
            "write false: ts_handlers pin themselves",
        )
    yield Finding(
        "hint",
        "cpu_launcher_enable",
        "true",
        "a change of the number of workers ends and starts all of the model's workers, not only the one more or less",
        "keep the number of workers, or write false: ts_handlers pin themselves, and the others go on",
    )
    budget = subject.machine.budget
    if budget.quota is not None and budget.quota < len(budget.affinity):
        yield Finding(
            "warning",
            "cpu_launcher_enable",
            f"true, under a quota of {budget.quota:g} CPUs",
            "it knows nothing of quotas: every container of the node pins itself to the same first CPUs",
            "write false, or give the container CPUs of its own",
        )
    if subject.machine.python is None:
        yield Finding(
            "problem",
            "cpu_launcher_enable",
            "true, and no `python` on PATH",
            "TorchServe tries the launcher with it, and workers fail without it",
            "put the serving environment's bin folder first on PATH",
        )
    options = _options(args)
    yield from _syntax(args, options)
    yield from _cores(subject, options, loaded)


def _options(args: str) -> dict[str, str]:
    """Return the options with their values, in the spelling with dashes."""
    words = args.split(" ")
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word.replace("_", "-").partition("=")
            found[name] = value or ("" if following.startswith("--") else following)
    return found


def _syntax(args: str, options: dict[str, str]) -> Iterator[Finding]:
    if args and "" in args.split(" "):
        yield Finding(
            "problem",
            _KEY,
            repr(args),
            "each blank more becomes an empty argument, and the launcher refuses",
            "use single blanks",
        )
    for name in options:
        if name in _TORCHSERVES_OWN:
            yield Finding("problem", _KEY, name, "TorchServe adds it for each worker itself", "remove it")
        elif name not in (*_WITH_VALUE, *_SWITCHES):
            yield Finding(
                "problem", _KEY, name, "no option of torch.backends.xeon.run_cpu: workers start without it", "remove it"
            )
    if "--core-list" in options and "--ncores-per-instance" not in options:
        yield Finding(
            "problem", _KEY, "--core-list alone", "the launcher wants --ncores-per-instance with it", "add the number"
        )


def _cores(subject: Subject, options: dict[str, str], loaded: Sequence[LoadedModel]) -> Iterator[Finding]:
    affinity = subject.machine.budget.affinity
    text = options.get("--core-list")
    if text is None:
        is_whole = len(affinity) == subject.machine.num_node_cpus
        yield Finding(
            "hint" if is_whole else "problem",
            _KEY,
            "no --core-list",
            "the launcher takes the physical cores of the whole machine, by their numbers in lscpu"
            + ("" if is_whole else f", and this container has CPUs {format_cpu_list(affinity)}"),
            "list the CPUs with --core-list and --ncores-per-instance",
        )
        return
    numbers = [java_int(word) for word in text.split(",")]
    foreign = [number for number in numbers if number is not None and number not in affinity]
    if None in numbers or foreign:
        yield Finding(
            "problem",
            _KEY,
            f"--core-list {text}",
            f"CPUs that are not there: this process may use {format_cpu_list(affinity)}"
            if foreign
            else "the launcher reads numbers and commas only",
            "list CPUs of the affinity mask",
        )
    each = java_int(options.get("--ncores-per-instance", "")) or 1
    workers = max((model.workers for model in loaded), default=0)
    if workers * each > len(numbers):
        yield Finding(
            "problem",
            _KEY,
            f"{len(numbers)} CPUs, {each} for each of {workers} workers",
            "the last workers get none, and do not start",
            "list more CPUs, or start fewer workers",
        )
