"""The CPU that will serve, which need not be the one that builds: `--target-cpu`."""

from __future__ import annotations

from ts_handlers.errors import OperatorError
from ts_handlers.machine.features import TARGETS, CpuInfo, TargetCpu, read_cpuinfo

__all__ = ["NATIVE", "TARGETS", "TargetCpu", "is_here", "target_cpu"]

NATIVE = "native"


def target_cpu(name: str, info: CpuInfo | None = None) -> TargetCpu:
    """Return a named target; `native` is the one of this machine, by its own name.

    Args:
        name: A name of TARGETS, or `native`.
        info: This machine; by default read from /proc/cpuinfo.

    Raises:
        OperatorError: There is none of this name.
    """
    if name == NATIVE:
        return (info or read_cpuinfo()).target
    if name not in TARGETS:
        raise OperatorError(f"--target-cpu {name}: choose one of {', '.join((NATIVE, *TARGETS))}")
    return TARGETS[name]


def is_here(name: str) -> bool:
    """Say whether the named target is what this machine is: quality and speed are measured here."""
    return target_cpu(name) == read_cpuinfo().target
