"""The memory of this machine or container: its limit, and what of it is free. Files of the kernel's in, bytes out."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.machine.cgroup import cgroup_folders, read_lines

_UNLIMITED_BYTES = 2**60
"""cgroup v1 writes "no limit" as the largest page-aligned 63-bit number."""

_UNKNOWN_BYTES = 2**30
"""Taken where /proc/meminfo cannot be read, which only makes plans careful."""


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes this process may use: the smallest of the machine's memory and its cgroups' limits."""
    limits = [_meminfo(root, "MemTotal"), *(limit for limit, _ in _cgroup_limits(root))]
    return min(limit for limit in limits if limit > 0)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes this process may still take: what the machine and its cgroups have left, page cache included."""
    return min(
        _meminfo(root, "MemAvailable"), *(limit - used for limit, used in _cgroup_limits(root)), _UNLIMITED_BYTES
    )


def _cgroup_limits(root: Path) -> list[tuple[int, int]]:
    """Return (limit, used without inactive page cache) in bytes of every control group that has a limit."""
    found = []
    for folder in cgroup_folders("memory", root):
        names = ("memory.max", "memory.current") if folder.version == 2 else _V1_NAMES
        limit, used = (_number(folder.path / name) for name in names)
        if limit is not None and 0 < limit < _UNLIMITED_BYTES:
            found.append((limit, max(0, (used or 0) - _inactive_file(folder.path / "memory.stat"))))
    return found


_V1_NAMES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _inactive_file(stat: Path) -> int:
    """Return the page cache the kernel would give back first."""
    fields = dict(line.split(" ", 1) for line in read_lines(stat) if " " in line)
    text = fields.get("total_inactive_file", fields.get("inactive_file", "0"))
    return int(text) if text.isdigit() else 0


def _number(file: Path) -> int | None:
    for line in read_lines(file):
        return int(line) if line.isdigit() else None
    return None


def _meminfo(root: Path, name: str) -> int:
    for line in read_lines(root / "proc/meminfo"):
        key, _, value = line.partition(":")
        number = value.strip().removesuffix("kB").strip()
        if key == name and number.isdigit():
            return int(number) * 1024
    return _UNKNOWN_BYTES
