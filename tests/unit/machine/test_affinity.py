from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ts_handlers.machine.affinity import bind_memory, bind_threads
from ts_handlers.machine.topology import Core

THREADS = """
import os, sys, threading, time
import numpy
from ts_handlers.machine.affinity import bind_threads
stop = threading.Event()
older = [threading.Thread(target=stop.wait) for _ in range(3)]
[thread.start() for thread in older]
numpy.ones((500, 500)) @ numpy.ones((500, 500))
bind_threads({int(sys.argv[1])})
newer = threading.Thread(target=stop.wait)
newer.start()
print(sorted({cpu for task in os.listdir("/proc/self/task") for cpu in os.sched_getaffinity(int(task))}))
print(len(os.listdir("/proc/self/task")))
stop.set()
"""


@pytest.mark.parametrize("index", [0, -1])
def test_every_thread_is_bound_those_of_libraries_and_later_ones_too(index: int) -> None:
    cpu = sorted(os.sched_getaffinity(0))[index]
    result = subprocess.run(
        [sys.executable, "-c", THREADS, str(cpu)], capture_output=True, text=True, check=True, timeout=60
    )
    cpus, num_threads = result.stdout.splitlines()
    assert cpus == f"[{cpu}]"
    assert int(num_threads) >= 5


def test_a_cpu_that_is_not_there_is_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(OSError, match="Invalid argument"):
        bind_threads({1023})
    assert os.sched_getaffinity(0) == before


def test_a_mask_that_does_not_stay_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a cpuset that shrinks meanwhile: the kernel takes part of the mask only, and says nothing."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    with pytest.raises(OSError, match="threads keep another mask than CPUs 1022-1023"):
        bind_threads({1022, 1023})


def test_threads_that_end_meanwhile_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / str(2**22)).mkdir()  # above the largest process id
    bind_threads(os.sched_getaffinity(0), tmp_path)


TWO_NODES = (Core(0, (0, 1)), Core(1, (2, 3)))


class FakeNuma:
    """libnuma on a machine with nodes, which this one need not be."""

    def __init__(self, available: int) -> None:
        self.available, self.preferred = available, -1

    def numa_available(self) -> int:
        return self.available

    def numa_set_preferred(self, node: int) -> None:
        self.preferred = node

    def numa_set_localalloc(self) -> None:
        self.preferred = -2


def test_memory_comes_from_the_node_of_the_cpus() -> None:
    library = FakeNuma(0)
    assert bind_memory(TWO_NODES, (2, 3), lambda: library) == "memory of node 1"
    assert library.preferred == 1


def test_memory_of_a_slice_on_two_nodes_is_left_to_the_kernel() -> None:
    library = FakeNuma(0)
    assert bind_memory(TWO_NODES, (1, 2), lambda: library) == "memory of nodes 0, 1"
    assert library.preferred == -2


@pytest.mark.parametrize(
    ("library", "reason"),
    [(None, "libnuma is not installed"), (FakeNuma(-1), "the kernel, or a sandbox, does not allow it")],
)
def test_without_libnuma_nothing_is_done(library: FakeNuma | None, reason: str) -> None:
    assert bind_memory(TWO_NODES, (0,), lambda: library) == f"memory not bound: {reason}"


def test_one_node_needs_nothing() -> None:
    assert bind_memory(TWO_NODES[:1], (0,)) == ""


def test_the_machine_s_own_libnuma_is_found_or_missed() -> None:
    code = (
        "from ts_handlers.machine.affinity import bind_memory\n"
        "from ts_handlers.machine.topology import Core\n"
        "print(bind_memory((Core(0, (0,)), Core(1, (1,))), (0,)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.startswith(("memory of node 0", "memory not bound: "))
