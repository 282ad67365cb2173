"""Which CPUs each of N workers runs on: pure arithmetic over cores.

All CPUs are divided, not only as many as there are threads. Under a cgroup quota the CPUs belong to other containers too,
who divide them without knowing of us: were every worker pinned to as few CPUs as it has threads, all containers would meet
on the first ones.

Neighbouring places are put apart (on another node), because a model's workers have neighbouring places: a model that has all
the traffic of the moment must not find its workers on one node.

More workers than CPUs have those of a node in common, and the kernel moves them: bound to single CPUs, those of one would
wait while another is idle. Eight workers on two CPUs serve a small model 10 to 25 % faster so.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

from ts_handlers.machine.topology import Core

T = TypeVar("T")


def slice_cpus(
    cores: Sequence[Core], place: int, num_workers: int, fair_threads: int = 1, own_threads: int = 1
) -> tuple[int, ...]:
    """Return the CPUs of one worker, ascending.

    Whole physical cores while there are enough for everyone, then their SMT siblings apart, then a node's CPUs in common;
    within one NUMA node and not on parts of cores, unless a worker's threads need more CPUs than that gives it. A node too
    small for one worker's threads is left over.

    Args:
        cores: The usable cores, ordered by node.
        place: This worker's place, 0 to num_workers - 1.
        num_workers: Workers that share the cores.
        fair_threads: Threads the arithmetic gives each worker; the same for all, so that all cut the same slices.
        own_threads: Threads of this worker, where its operator asked for more.
    """
    if not 0 <= place < num_workers or not cores:
        raise ValueError(f"place {place} of {num_workers} workers on {len(cores)} cores; it must be below their number")
    line = [cpu for core in cores for cpu in core.cpus]
    needed = min(fair_threads, max(1, len(line) // num_workers))
    roomy = [core for core in cores if sum(len(other.cpus) for other in cores if other.node == core.node) >= needed]
    for slices in (_by_node(roomy or cores, num_workers), _divide(cores, num_workers), _by_cpu(cores, num_workers)):
        if all(len(cpus) >= needed for cpus in slices):
            break
    chosen = slices[place]
    if len(chosen) < own_threads:  # more threads than the arithmetic gives were asked for: room for them, in common
        chosen = _widen(cores, chosen, own_threads)
    return tuple(sorted(chosen))


def _by_node(cores: Sequence[Core], num_workers: int) -> list[tuple[int, ...]]:
    """Divide node by node: each gets workers by its size (D'Hondt's method); or a worker gets neighbouring nodes.

    The size is in cores while there are enough for everyone, else in CPUs: so no node gets more workers than fit.
    """
    nodes = sorted({core.node for core in cores})
    of_node = {node: [core for core in cores if core.node == node] for node in nodes}
    if num_workers < len(nodes):
        groups = _even(nodes, num_workers)
        return [tuple(cpu for node in group for core in of_node[node] for cpu in core.cpus) for group in groups]
    in_cores = num_workers <= len(cores)
    sizes = {node: len(own) if in_cores else sum(len(core.cpus) for core in own) for node, own in of_node.items()}
    counts = dict.fromkeys(nodes, 1)
    for _ in range(num_workers - len(nodes)):
        counts[max(nodes, key=lambda node: (Fraction(sizes[node], counts[node] + 1), -node))] += 1
    return _interleave([_divide(of_node[node], counts[node]) for node in nodes])


def _divide(cores: Sequence[Core], num_workers: int) -> list[tuple[int, ...]]:
    """Divide cores evenly, whatever their nodes."""
    if num_workers <= len(cores):
        return [tuple(cpu for core in group for cpu in core.cpus) for group in _even(cores, num_workers)]
    line = _physical_first(cores)
    if num_workers <= len(line):
        return _siblings_apart(cores, line, num_workers)
    return [tuple(line)] * num_workers


def _by_cpu(cores: Sequence[Core], num_workers: int) -> list[tuple[int, ...]]:
    """Divide CPUs evenly, though two workers meet on a core: where some cores have fewer usable threads than others."""
    return [tuple(cpus) for cpus in _even([cpu for core in cores for cpu in core.cpus], num_workers)]


def _siblings_apart(cores: Sequence[Core], line: Sequence[int], num_workers: int) -> list[tuple[int, ...]]:
    """Give each worker one CPU, first threads first; siblings that are left join the worker on their core."""
    slices = [[cpu] for cpu in line[:num_workers]]
    owner = {slice_[0]: slice_ for slice_ in slices}
    first_thread = {cpu: core.cpus[0] for core in cores for cpu in core.cpus}
    for cpu in line[num_workers:]:
        owner[first_thread[cpu]].append(cpu)
    return [tuple(slice_) for slice_ in slices]


def _interleave(groups: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """Take the first of every group, then the second ones, and so on."""
    most = max(len(group) for group in groups)
    return [group[index] for index in range(most) for group in groups if index < len(group)]


def _physical_first(cores: Sequence[Core]) -> list[int]:
    """Return the first CPU of every core, then the second ones, and so on."""
    most = max(len(core.cpus) for core in cores)
    return [core.cpus[thread] for thread in range(most) for core in cores if thread < len(core.cpus)]


def _even(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cut a sequence into parts whose sizes differ by one at most."""
    size = len(items)
    return [items[index * size // parts : (index + 1) * size // parts] for index in range(parts)]


def _widen(cores: Sequence[Core], chosen: Sequence[int], threads: int) -> tuple[int, ...]:
    """Return the CPUs of the nodes a slice touches; all where those are too few."""
    nodes = {core.node for core in cores for cpu in core.cpus if cpu in chosen}
    near = tuple(cpu for core in cores if core.node in nodes for cpu in core.cpus)
    return near if len(near) >= threads else tuple(cpu for core in cores for cpu in core.cpus)
