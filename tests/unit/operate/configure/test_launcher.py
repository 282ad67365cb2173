from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.machine.topology import Core
from ts_handlers.operate.configure.launcher import launcher_args
from ts_handlers.operate.configure.options import Options
from ts_handlers.operate.configure.plan import make_plan
from ts_handlers.operate.torchserve.archives import Archive


def smt(num_cores: int) -> tuple[Core, ...]:
    """Cores as Linux numbers them: first one CPU of each core, then their siblings."""
    return tuple(Core(0, (core, core + num_cores)) for core in range(num_cores))


def launch(
    cores: tuple[Core, ...],
    *,
    cpus: float | None = None,
    quota: float | None = None,
    names: str = "a",
    **options: Any,
) -> str:
    affinity = tuple(sorted(cpu for core in cores for cpu in core.cpus))
    archives = [Archive(Path(f"{name}.mar"), name, "1.0") for name in names]
    plan = make_plan(archives, cpus or len(affinity), Options(**options), memory_bytes=2**36)
    return launcher_args(plan, CpuBudget(affinity, quota), cores)


@pytest.mark.parametrize(
    ("cores", "options", "expected"),
    [
        (smt(4), {"workers": 2}, "--core-list 0,1,2,3 --ncores-per-instance 2"),
        (smt(4), {"workers": 4}, "--core-list 0,1,2,3 --ncores-per-instance 1"),
        (smt(4), {"workers": 8}, "--core-list 0,1,2,3,4,5,6,7 --ncores-per-instance 1"),
        (smt(5), {"workers": 2}, "--core-list 0,1,2,3 --ncores-per-instance 2"),
        (smt(4), {"workers": 2, "cpus": 2}, "--core-list 0,1 --ncores-per-instance 1"),
        ((Core(0, (3,)), Core(0, (7,))), {"workers": 2}, "--core-list 3,7 --ncores-per-instance 1"),
    ],
)
def test_each_worker_has_cpus_of_its_own(cores: tuple[Core, ...], options: dict[str, Any], expected: str) -> None:
    assert launch(cores, **options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "ab"}, r"2 models \(a 1\.0, b 1\.0\)"),
        ({"gpus": 1}, "1 GPUs: it is for CPUs"),
        ({"quota": 2}, "quota of 2 CPUs with 4 in the affinity mask"),
        ({"cpus": 8}, "for 8 CPUs, and this machine gives 4"),
        ({"workers": 5}, "5 workers want more than the 4 CPUs"),
    ],
)
def test_where_it_cannot_be_right_it_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        launch(smt(2), **options)


def test_a_quota_that_binds_nothing_is_fine() -> None:
    assert launch(smt(2), quota=4)


def test_its_arguments_are_those_of_the_installed_torch() -> None:
    command = [sys.executable, "-m", "torch.backends.xeon.run_cpu", *launch(smt(1), workers=1).split(" ")]
    subprocess.run([*command, "--no_python", "hostname"], check=True, capture_output=True, timeout=120)
