from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ts_handlers.machine import CpuBudget, cpu_budget

V2_MOUNT = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_MOUNT = "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
CONTAINER_MOUNT = "33 23 0:28 /kubepods/pod1/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu"
SPACED_MOUNT = r"34 23 0:27 / /sys/fs/my\040cgroup rw - cgroup2 cgroup2 rw"


def make_root(root: Path, mountinfo: list[str], cgroup: list[str], files: dict[str, str]) -> Path:
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text("\n".join(mountinfo) + "\nshort line\n")
    (proc / "cgroup").write_text("\n".join(cgroup) + "\n")
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


CASES = {
    "v2": ([V2_MOUNT], ["0::/app"], {"sys/fs/cgroup/app/cpu.max": "150000 100000\n"}, 1.5),
    "v2 without a limit": ([V2_MOUNT], ["0::/app"], {"sys/fs/cgroup/app/cpu.max": "max 100000\n"}, None),
    "v2 default period": ([V2_MOUNT], ["0::/app"], {"sys/fs/cgroup/app/cpu.max": "50000\n"}, 0.5),
    "v2, the parent is tighter": (
        [V2_MOUNT],
        ["0::/a/b/c"],
        {
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000",
            "sys/fs/cgroup/a/b/cpu.max": "25000 100000",
            "sys/fs/cgroup/a/cpu.max": "200000 100000",
        },
        0.25,
    ),
    "v2, mount point with a space": ([SPACED_MOUNT], ["0::/"], {"sys/fs/my cgroup/cpu.max": "100000 100000"}, 1.0),
    "v1": (
        [V1_MOUNT],
        ["4:cpu,cpuacct:/app"],
        {
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "70000\n",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us": "100000\n",
        },
        0.7,
    ),
    "v1 without a limit": (
        [V1_MOUNT],
        ["4:cpu,cpuacct:/app"],
        {
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "v1 in a container, the host's path in /proc": (
        [CONTAINER_MOUNT],
        ["4:cpu:/kubepods/pod1/c1"],
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "30000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "20000"},
        1.5,
    ),
    "v1 in a container, a path outside the mount": (
        [CONTAINER_MOUNT],
        ["4:cpu:/elsewhere"],
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "30000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "20000"},
        1.5,
    ),
    "both hierarchies, the tighter one counts": (
        [V1_MOUNT, V2_MOUNT],
        ["4:cpu,cpuacct:/app", "0::/app"],
        {
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "190000",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/app/cpu.max": "90000 100000",
        },
        0.9,
    ),
    "no cgroup at all": ([], [], {}, None),
    "mounted, and this process is in none": ([V2_MOUNT, V1_MOUNT], ["5:memory:/"], {}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_quota(case: str, tmp_path: Path) -> None:
    mountinfo, cgroup, files, quota = CASES[case]
    budget = cpu_budget(make_root(tmp_path, mountinfo, cgroup, files))
    assert budget.quota == quota
    assert budget.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert (budget.quota_file is None) == (quota is None)


def test_a_machine_without_proc_has_no_quota(tmp_path: Path) -> None:
    assert cpu_budget(tmp_path).quota is None


def test_the_budget_is_the_smaller_of_quota_and_affinity() -> None:
    assert CpuBudget((0, 1, 2, 3)).cpus == 4
    assert CpuBudget((0, 1, 2, 3), 1.5).cpus == 1.5
    assert CpuBudget((0, 1), 3.0).cpus == 2
    assert "no cgroup quota" in CpuBudget((0,)).describe()
    assert "cgroup quota 1.5 (x)" in CpuBudget((0, 1), 1.5, Path("x")).describe()


ORACLE = """
import os, sys
import loky
from ts_handlers.machine import cpu_budget
from ts_handlers.machine.topology import read_topology
everything = os.sched_getaffinity(0)
print(loky.cpu_count(only_physical_cores=True), len(read_topology(everything)))
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
print(loky.cpu_count(), -(-cpu_budget().cpus // 1))
"""


@pytest.mark.parametrize("count", [1, None])
def test_loky_counts_the_same(count: int | None) -> None:
    """Loky rounds a fraction of a CPU up, and reads affinity, cgroups and physical cores as well."""
    cpus = sorted(os.sched_getaffinity(0))[:count]
    command = [sys.executable, "-c", ORACLE, ",".join(map(str, cpus))]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    for line in result.stdout.splitlines():
        theirs, ours = map(float, line.split())
        assert theirs == ours
