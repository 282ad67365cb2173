from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.machine.test_budget import V2_MOUNT, make_root
from ts_handlers.machine.memory import available_memory, memory_limit

V1_MEMORY = "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
MEMINFO = {"proc/meminfo": "MemTotal:  4000000 kB\nMemFree: 10 kB\nMemAvailable: 3000000 kB\n"}
KB, MB = 1000 * 1024, 2**20

CASES = {
    "no cgroup": ([], [], {}, 4000 * KB, 3000 * KB),
    "v2": (
        [V2_MOUNT],
        ["0::/app"],
        {
            "sys/fs/cgroup/app/memory.max": f"{512 * MB}\n",
            "sys/fs/cgroup/app/memory.current": f"{400 * MB}\n",
            "sys/fs/cgroup/app/memory.stat": f"anon 5\ninactive_file {100 * MB}\n",
        },
        512 * MB,
        212 * MB,
    ),
    "v2 without a limit": ([V2_MOUNT], ["0::/app"], {"sys/fs/cgroup/app/memory.max": "max\n"}, 4000 * KB, 3000 * KB),
    "v2, a group above has less": (
        [V2_MOUNT],
        ["0::/pod/app"],
        {"sys/fs/cgroup/pod/memory.max": f"{512 * MB}\n", "sys/fs/cgroup/pod/app/memory.max": "max\n"},
        512 * MB,
        512 * MB,
    ),
    "v2, usage is not to be read": (
        [V2_MOUNT],
        ["0::/app"],
        {"sys/fs/cgroup/app/memory.max": f"{512 * MB}\n"},
        512 * MB,
        512 * MB,
    ),
    "v1": (
        [V1_MEMORY],
        ["4:memory:/app"],
        {
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": f"{256 * MB}\n",
            "sys/fs/cgroup/memory/app/memory.usage_in_bytes": f"{200 * MB}\n",
            "sys/fs/cgroup/memory/app/memory.stat": f"inactive_file 1\ntotal_inactive_file {50 * MB}\n",
        },
        256 * MB,
        106 * MB,
    ),
    "v1 without a limit": (
        [V1_MEMORY],
        ["4:memory:/app"],
        {"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "9223372036854771712\n"},
        4000 * KB,
        3000 * KB,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_limit_and_what_is_left(case: str, tmp_path: Path) -> None:
    mountinfo, cgroup, files, limit, available = CASES[case]
    root = make_root(tmp_path, mountinfo, cgroup, MEMINFO | files)
    assert (memory_limit(root), available_memory(root)) == (limit, available)


def test_a_machine_that_says_nothing_is_taken_for_a_small_one(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == available_memory(tmp_path) == 2**30


def test_this_machine() -> None:
    assert 0 < available_memory() < memory_limit()
