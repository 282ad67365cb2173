"""torch's CPU launcher: the arguments that fit this machine, or why it cannot be right here.

TorchServe runs each worker as `python -m torch.backends.xeon.run_cpu ARGS --ninstances WORKERS --rank N worker`. The
launcher numbers workers by model, knows nothing of quotas, and without a list of CPUs takes the machine's, not ours.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ts_handlers.cpu import CpuBudget
from ts_handlers.cpu.topology import Core
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.allocators import Preloads
from ts_handlers.operate.configure.plan import Plan

MODULE = "torch.backends.xeon.run_cpu"

_PROBE_TIMEOUT_S = 120.0
_LAUNCHER_FOLDERS = ("/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64")
"""Where the launcher looks for libNAME.so, and only under this name."""

_LEAVE_OUT = "leave --launcher out: the handlers pin themselves, by what is free on this machine"


@dataclass(frozen=True, slots=True)
class Launch:
    """How the launcher is called.

    Attributes:
        args: `cpu_launcher_args`.
        comment: Why, one sentence a line.
        warnings: What the operator should know, for the console.
    """

    args: str
    comment: str
    warnings: tuple[str, ...]


def plan_launch(plan: Plan, budget: CpuBudget, cores: Sequence[Core], preloads: Preloads) -> Launch:
    """Choose the arguments.

    Args:
        plan: What was decided for the models.
        budget: The CPUs of this machine.
        cores: The physical cores among them.
        preloads: What is installed here.

    Raises:
        OperatorError: The launcher cannot be right here.
    """
    _refuse(plan, budget)
    workers = plan.num_workers
    cpus = _choose_cpus(cores, workers, math.floor(plan.cpus))
    each = len(cpus) // workers
    if each < 1:
        raise OperatorError(
            f"--launcher gives each worker CPUs of its own, and {workers} workers want more than the {len(cpus)} CPUs; "
            f"ask for fewer with --workers, or {_LEAVE_OUT}"
        )
    cpus = cpus[: each * workers]
    nodes = {cpu: core.node for core in cores for cpu in core.cpus}
    is_numa = len(preloads.nodes) > 1 and preloads.has_numactl and 0 in budget.affinity
    args = [
        *("--core-list", ",".join(map(str, cpus))),
        *("--ncores-per-instance", str(each)),
        *([] if is_numa else ["--disable-numactl"]),
        *_library_options(preloads),
    ]
    slices = [cpus[start : start + each] for start in range(0, len(cpus), each)]
    return Launch(" ".join(args), _comment(each, is_numa=is_numa), tuple(_warnings(budget, preloads, slices, nodes)))


def probe_launcher(args: str, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> None:
    """Try the launcher exactly as TorchServe does before each worker: with the `python` of PATH.

    Args:
        args: `cpu_launcher_args`.
        run: Runs a command, as subprocess.run does.

    Raises:
        OperatorError: TorchServe would go on without it, and say so in its log only.
    """
    python = shutil.which("python")
    if python is None:
        raise OperatorError(
            "--launcher: there is no `python` on PATH, which TorchServe tries the launcher with; put the bin folder of "
            f"the serving environment first on PATH, or {_LEAVE_OUT}"
        )
    command = [python, "-m", MODULE, *args.split(" "), "--no_python", "hostname"]
    try:
        result = run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"--launcher: {python} -m {MODULE} does not end well ({error}); {_LEAVE_OUT}") from error
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise OperatorError(
            f"--launcher: {python} -m {MODULE} fails ({lines[-1] if lines else f'exit code {result.returncode}'}); put the "
            f"bin folder of the serving environment, with torch in it, first on PATH, or {_LEAVE_OUT}"
        )


def _refuse(plan: Plan, budget: CpuBudget) -> None:
    if len(plan.models) > 1:
        names = ", ".join(f"{model.name} {model.version}" for model in plan.models)
        raise OperatorError(
            f"--launcher with {len(plan.models)} models ({names}): it divides the CPUs for each model alone, so that they "
            f"would run on the same ones; serve one model here, or {_LEAVE_OUT}"
        )
    if plan.gpus:
        raise OperatorError(f"--launcher with {plan.gpus} GPUs: it is for CPUs; {_LEAVE_OUT}")
    count = len(budget.affinity)
    if budget.quota is not None and budget.quota < count:
        raise OperatorError(
            f"--launcher under a quota of {budget.quota:g} CPUs with {count} in the affinity mask: every container of this "
            "node would pin itself to the same first CPUs; give this one CPUs of its own (a cpuset; in Kubernetes the "
            f"static CPU manager policy), or {_LEAVE_OUT}"
        )
    if plan.cpus > count:
        raise OperatorError(
            f"--launcher for {plan.cpus:g} CPUs, and this machine gives {count}: CPU numbers of another machine cannot be "
            "known; run configure on the machine that serves"
        )


def _choose_cpus(cores: Sequence[Core], workers: int, most: int) -> list[int]:
    """Return CPU numbers, ascending as the launcher sorts them: one of each core, or all where cores are too few."""
    single = sorted(core.cpus[0] for core in cores)
    cpus = single if len(single) >= max(workers, 1) else sorted(cpu for core in cores for cpu in core.cpus)
    return cpus[: max(1, most)]


def _library_options(preloads: Preloads) -> list[str]:
    seen = {
        library
        for library, file in preloads.libraries.items()
        if file.name == f"lib{library}.so" and str(file.parent) in _LAUNCHER_FOLDERS
    }
    allocator = next((name for name in ("tcmalloc", "jemalloc") if name in seen), None)
    return [
        f"--enable-{allocator}" if allocator else "--use-default-allocator",
        *([] if "iomp5" in seen else ["--disable-iomp"]),
    ]


def _comment(each: int, *, is_numa: bool) -> str:
    cpus = f"{each} CPU{'s' * (each > 1)}"
    memory = "and to the memory of their NUMA node" if is_numa else "(taskset: there is one NUMA node, or no numactl)"
    return (
        f"The launcher, as asked for with --launcher, binds each worker to {cpus} of its own\n{memory};\n"
        "the handlers see that and stand back. The list is the CPUs of this process, one of each physical core where they\n"
        "suffice. TorchServe adds --ninstances and --rank, tries it with the `python` of PATH, and goes on without it when\n"
        "that fails. Changing the number of workers restarts all of them."
    )


def _warnings(
    budget: CpuBudget, preloads: Preloads, slices: Sequence[Sequence[int]], nodes: dict[int, int]
) -> list[str]:
    found = ["with the launcher, changing the number of workers restarts all of them"]
    if len(preloads.nodes) < 2:
        found.append("there is one NUMA node: the launcher gains nothing here over the handlers' own pinning")
    elif not preloads.has_numactl:
        found.append("numactl is not installed: CPUs are bound and memory is not; apt-get install numactl")
    elif 0 not in budget.affinity:
        found.append("CPU 0 is not ours, which the launcher tries numactl with: CPUs are bound and memory is not")
    crossing = [cpus for cpus in slices if len({nodes[cpu] for cpu in cpus}) > 1]
    if crossing:
        found.append(
            f"the CPUs {','.join(map(str, crossing[0]))} of one worker lie on several NUMA nodes; "
            "ask for a number of workers that divides each node's cores"
        )
    return found
