from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.cpu import CpuBudget
from ts_handlers.cpu.topology import Core
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.allocators import Preloads
from ts_handlers.operate.configure.launcher import Launch, plan_launch, probe_launcher
from ts_handlers.operate.configure.plan import Options, make_plan
from ts_handlers.operate.torchserve.archives import Archive

ONE_NODE = Preloads({}, has_numactl=False)
TWO_NODES = Preloads({}, has_numactl=True, nodes=(0, 1))


def smt(num_cores: int, nodes: int = 1) -> tuple[Core, ...]:
    """Cores as Linux numbers them: first one CPU of each core, then their siblings; nodes in halves."""
    return tuple(Core(core * nodes // num_cores, (core, core + num_cores)) for core in range(num_cores))


def launch(
    cores: tuple[Core, ...],
    *,
    cpus: float | None = None,
    quota: float | None = None,
    preloads: Preloads = ONE_NODE,
    names: str = "a",
    **options: Any,
) -> Launch:
    affinity = tuple(sorted(cpu for core in cores for cpu in core.cpus))
    archives = [Archive(Path(f"{name}.mar"), name, "1.0") for name in names]
    plan = make_plan(archives, cpus or len(affinity), Options(**options), memory_bytes=2**36)
    return plan_launch(plan, CpuBudget(affinity, quota), cores, preloads)


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
    assert launch(cores, **options).args.startswith(f"{expected} --disable-numactl")


def test_numactl_binds_memory_where_there_are_nodes() -> None:
    decided = launch(smt(4, nodes=2), workers=2, preloads=TWO_NODES)

    assert "--disable-numactl" not in decided.args
    assert "memory of their NUMA node" in decided.comment
    assert decided.warnings == ("with the launcher, changing the number of workers restarts all of them",)


@pytest.mark.parametrize(
    ("cores", "preloads", "workers", "message"),
    [
        (smt(2), ONE_NODE, 2, "there is one NUMA node"),
        (smt(4, 2), Preloads({}, has_numactl=False, nodes=(0, 1)), 2, "numactl is not installed"),
        ((Core(0, (2,)), Core(1, (3,))), TWO_NODES, 2, "CPU 0 is not ours"),
        (smt(4, 2), TWO_NODES, 1, "CPUs 0,1,2,3 of one worker lie on several NUMA nodes"),
    ],
)
def test_what_is_less_than_right_is_said(
    cores: tuple[Core, ...], preloads: Preloads, workers: int, message: str
) -> None:
    assert any(message in warning for warning in launch(cores, workers=workers, preloads=preloads).warnings)


@pytest.mark.parametrize(
    ("libraries", "expected"),
    [
        ({}, "--use-default-allocator --disable-iomp"),
        ({"tcmalloc": Path("/usr/lib/libtcmalloc.so")}, "--enable-tcmalloc --disable-iomp"),
        ({"jemalloc": Path("/usr/local/lib/libjemalloc.so")}, "--enable-jemalloc --disable-iomp"),
        ({"tcmalloc": Path("/usr/lib/libtcmalloc.so.4")}, "--use-default-allocator --disable-iomp"),
        ({"jemalloc": Path("/elsewhere/libjemalloc.so")}, "--use-default-allocator --disable-iomp"),
        ({"iomp5": Path("/usr/lib/libiomp5.so")}, "--use-default-allocator"),
    ],
)
def test_libraries_are_asked_for_where_the_launcher_finds_them(libraries: dict[Any, Path], expected: str) -> None:
    assert launch(smt(2), preloads=Preloads(libraries, has_numactl=False)).args.endswith(expected)


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
    assert launch(smt(2), quota=4).args


def test_its_arguments_are_those_of_the_installed_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    probe_launcher("--core-list 0 --ncores-per-instance 1 --disable-numactl --use-default-allocator --disable-iomp")

    with pytest.raises(OperatorError, match="fails .*put the bin folder"):
        probe_launcher("--core-list 0")


def test_a_path_without_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OperatorError, match="no `python` on PATH"):
        probe_launcher("--core-list 0")


def test_a_python_that_says_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    with pytest.raises(OperatorError, match=r"fails \(exit code 3\)"):
        probe_launcher("--core-list 0")


def test_a_launcher_that_hangs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))

    def hang(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:  # waiting 2 minutes for it
        raise subprocess.TimeoutExpired(command, 120)

    with pytest.raises(OperatorError, match="does not end well"):
        probe_launcher("--core-list 0", run=hang)
