from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.machine.machines import DESKTOP, SMT, TWO_SOCKETS, Machine, write_sysfs
from ts_handlers.machine.placement.slices import slice_cpus
from ts_handlers.machine.topology import Core, format_cpu_list, parse_cpu_list, read_topology

ALL = "0-15"

# machine, cpuset, workers, threads the arithmetic gives each -> the slice of each worker, in order of their places
CASES: dict[str, tuple[Machine, str, int, int, list[str]]] = {
    "one worker has everything": (DESKTOP, "0-3", 1, 4, ["0-3"]),
    "two workers": (DESKTOP, "0-3", 2, 2, ["0-1", "2-3"]),
    "three workers, a core more for one": (DESKTOP, "0-3", 3, 1, ["0", "1", "2-3"]),
    "as many workers as CPUs": (DESKTOP, "0-3", 4, 1, ["0", "1", "2", "3"]),
    "three workers on two CPUs have them in common": (DESKTOP, "0-1", 3, 1, ["0-1"] * 3),
    "eight workers on two CPUs": (DESKTOP, "0-1", 8, 1, ["0-1"] * 8),
    "SMT: more workers than CPUs": (SMT, "0-7", 9, 1, ["0-7"] * 9),
    "two sockets, more workers than CPUs: those of a node in common": (
        TWO_SOCKETS,
        "0-1,4-5",
        6,
        1,
        ["0-1", "4-5"] * 3,
    ),
    "two sockets, more workers than CPUs on the larger one alone": (
        TWO_SOCKETS,
        "0,4-5",
        4,
        1,
        ["0", "4-5", "4-5", "4-5"],
    ),
    "one CPU": (DESKTOP, "2", 3, 1, ["2", "2", "2"]),
    "no CPU 0": (DESKTOP, "1-3", 2, 1, ["1", "2-3"]),
    "holes in the cpuset": (DESKTOP, "0,3", 2, 1, ["0", "3"]),
    "SMT: a core with both threads each": (SMT, "0-7", 4, 2, ["0,4", "1,5", "2,6", "3,7"]),
    "SMT: two cores each": (SMT, "0-7", 2, 4, ["0-1,4-5", "2-3,6-7"]),
    "SMT: more workers than cores, the sibling of a core whose owner is alone is its": (
        SMT,
        "0-7",
        6,
        1,
        ["0", "1", "2,6", "3,7", "4", "5"],
    ),
    "SMT: one thread each": (SMT, "0-7", 8, 1, ["0", "1", "2", "3", "4", "5", "6", "7"]),
    "SMT: siblings missing from the cpuset": (SMT, "0-3,5", 5, 1, ["0", "1", "2", "3", "5"]),
    "SMT: only second threads": (SMT, "4-7", 2, 2, ["4-5", "6-7"]),
    "two sockets: one worker with sixteen threads": (TWO_SOCKETS, ALL, 1, 16, ["0-15"]),
    "two sockets: a node each": (TWO_SOCKETS, ALL, 2, 8, ["0-3,8-11", "4-7,12-15"]),
    "two sockets, three workers: no slice on two nodes": (
        TWO_SOCKETS,
        ALL,
        3,
        4,
        ["0-1,8-9", "4-7,12-15", "2-3,10-11"],
    ),
    "two sockets, four workers: neighbours on different nodes": (
        TWO_SOCKETS,
        ALL,
        4,
        4,
        ["0-1,8-9", "4-5,12-13", "2-3,10-11", "6-7,14-15"],
    ),
    "two sockets, a cpuset within one": (TWO_SOCKETS, "4-7", 2, 2, ["4-5", "6-7"]),
    "two sockets, one CPU of the first: its node would be too small for two threads": (
        TWO_SOCKETS,
        "3,4-7",
        2,
        2,
        ["4-5", "6-7"],
    ),
    "two sockets, uneven: threads before nodes": (TWO_SOCKETS, "2-3,4-6", 2, 2, ["2-3", "4-6"]),
    "a quota of two CPUs on a large machine: one thread each, and all CPUs": (
        TWO_SOCKETS,
        ALL,
        2,
        1,
        ["0-3,8-11", "4-7,12-15"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_slices(case: str, tmp_path: Path) -> None:
    machine, cpuset, num_workers, threads, expected = CASES[case]
    cores = read_topology(parse_cpu_list(cpuset), write_sysfs(tmp_path, machine))
    slices = [format_cpu_list(slice_cpus(cores, place, num_workers, threads)) for place in range(num_workers)]
    assert slices == expected


@pytest.mark.parametrize(
    ("machine", "cpuset", "workers", "own_threads", "expected"),
    [
        (DESKTOP, "0-1", 2, 2, ["0-1", "0-1"]),
        (TWO_SOCKETS, "0-7", 4, 4, ["0-3", "4-7", "0-3", "4-7"]),
        (TWO_SOCKETS, "0-7", 4, 6, ["0-7"] * 4),
    ],
)
def test_more_threads_than_the_slice_has_get_room_in_the_node_first(
    machine: Machine, cpuset: str, workers: int, own_threads: int, expected: list[str], tmp_path: Path
) -> None:
    cores = read_topology(parse_cpu_list(cpuset), write_sysfs(tmp_path, machine))
    slices = [slice_cpus(cores, place, workers, 1, own_threads) for place in range(workers)]
    assert [format_cpu_list(cpus) for cpus in slices] == expected


def test_sysfs_before_linux_5_3(tmp_path: Path) -> None:
    cores = read_topology(range(8), write_sysfs(tmp_path, SMT, siblings="thread_siblings_list"))
    assert cores == (Core(0, (0, 4)), Core(0, (1, 5)), Core(0, (2, 6)), Core(0, (3, 7)))


def test_a_sandbox_without_sysfs_has_cores_of_one_cpu_on_one_node(tmp_path: Path) -> None:
    assert read_topology((3, 1), tmp_path) == (Core(0, (1,)), Core(0, (3,)))


@pytest.mark.parametrize(("place", "workers"), [(2, 2), (-1, 1), (0, 0)])
def test_a_place_that_does_not_exist(place: int, workers: int) -> None:
    with pytest.raises(ValueError, match="it must be below their number"):
        slice_cpus((Core(0, (0,)),), place, workers)


@st.composite
def cpusets(draw: st.DrawFn) -> tuple[Core, ...]:
    """Any part of any machine: nodes of some cores of one or two threads, numbered in any order."""
    counts = draw(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=5), min_size=1, max_size=4))
    numbers = iter(draw(st.permutations(range(sum(map(sum, counts))))))
    cores = [
        Core(node, tuple(sorted(next(numbers) for _ in range(threads))))
        for node, of_node in enumerate(counts)
        for threads in of_node
    ]
    return tuple(sorted(cores, key=lambda core: (core.node, core.cpus)))


@given(cores=cpusets(), num_workers=st.integers(1, 40), data=st.data())
def test_what_holds_for_every_machine(cores: tuple[Core, ...], num_workers: int, data: st.DataObject) -> None:
    every = [cpu for core in cores for cpu in core.cpus]
    share = max(1, len(every) // num_workers)
    threads = data.draw(st.integers(1, share))
    slices = [slice_cpus(cores, place, num_workers, threads) for place in range(num_workers)]
    taken = [cpu for cpus in slices for cpu in cpus]
    assert threads > 1 or set(taken) == set(every), "no CPU is left over"
    assert all(len(cpus) >= threads for cpus in slices)
    assert all(cpus == tuple(sorted(set(cpus))) and cpus for cpus in slices)
    if num_workers <= len(every):
        assert len(taken) == len(set(taken)), "nobody shares a CPU"
    else:
        load = {cpu: sum(1 / len(cpus) for cpus in slices if cpu in cpus) for cpu in every}
        assert max(load.values()) <= 2 * num_workers / len(every) + 1, "no CPU has much more than its part"
    if num_workers <= len(cores) and threads == 1:
        owners = [{place for place, cpus in enumerate(slices) if set(core.cpus) & set(cpus)} for core in cores]
        assert all(len(places) == 1 for places in owners), "whole physical cores"


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cpus_are_read_as_they_are_written(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == tuple(sorted(cpus))
