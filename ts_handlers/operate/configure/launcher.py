"""torch's CPU launcher: the arguments that fit this machine, or why it cannot be right here.

TorchServe runs each worker as `python -m torch.backends.xeon.run_cpu ARGS --ninstances WORKERS --rank N worker`. The
launcher numbers workers by model, knows nothing of quotas, and without a list of CPUs takes the machine's, not ours. It
looks for numactl, allocators and OpenMP by itself, and uses taskset where numactl does not work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.machine.topology import Core
from ts_handlers.operate.configure.plan import Plan

_LEAVE_OUT = "leave --launcher out: the handlers pin themselves, by what is free on this machine"


def launcher_args(plan: Plan, budget: CpuBudget, cores: Sequence[Core]) -> str:
    """Return `cpu_launcher_args`: the CPUs of all workers, one of each physical core where they suffice.

    Args:
        plan: What was decided for the models.
        budget: The CPUs of this machine.
        cores: The physical cores among them.

    Raises:
        OperatorError: The launcher cannot be right here.
    """
    _refuse(plan, budget)
    workers = plan.num_workers
    single = sorted(core.cpus[0] for core in cores)
    cpus = single if len(single) >= workers else sorted(cpu for core in cores for cpu in core.cpus)
    cpus = cpus[: max(1, math.floor(plan.cpus))]
    each = len(cpus) // workers
    if each < 1:
        raise OperatorError(
            f"--launcher gives each worker CPUs of its own, and {workers} workers want more than the {len(cpus)} CPUs; "
            f"ask for fewer with --workers, or {_LEAVE_OUT}"
        )
    return f"--core-list {','.join(map(str, cpus[: each * workers]))} --ncores-per-instance {each}"


def _refuse(plan: Plan, budget: CpuBudget) -> None:
    if len(plan.models) > 1:
        names = ", ".join(model.label for model in plan.models)
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
