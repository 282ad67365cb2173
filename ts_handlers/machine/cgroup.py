"""Control groups, v1 and v2: which of the kernel's folders hold the limits of this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal


@dataclass(frozen=True, slots=True)
class CgroupFolder:
    """One control group that this process is in.

    Attributes:
        path: Its folder.
        version: 1 or 2.
    """

    path: Path
    version: int


@dataclass(frozen=True, slots=True)
class _Mount:
    """One mounted hierarchy: where, which part of it, its version, and, for v1, its controllers."""

    point: str
    root: str
    version: int
    controllers: tuple[str, ...]


def cgroup_folders(controller: str, root: Path = Path("/")) -> Iterator[CgroupFolder]:
    """Yield the groups that can limit this process in `controller`, from its own up to the mount point.

    A process sees nothing above the mount point; a limit there was applied to what it sees as the whole.

    Args:
        controller: "cpu" or "memory".
        root: Where `proc` and the mount points are found; a fixture's folder in tests.
    """
    for mount in _mounts(root):
        if mount.version == 1 and controller not in mount.controllers:
            continue
        path = _own_path(root, None if mount.version == 2 else controller)
        if path is None:
            continue
        relative = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
        for folder in (relative, *relative.parents):
            yield CgroupFolder(root / mount.point.lstrip("/") / folder, mount.version)


def cgroup_version(root: Path = Path("/")) -> Literal["v1", "v2", "v1 and v2", "none"]:
    """Say which control groups are mounted."""
    versions = {mount.version for mount in _mounts(root)}
    if versions == {1, 2}:
        return "v1 and v2"
    return "v2" if 2 in versions else "v1" if versions else "none"


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file of the kernel's; none where it does not exist or may not be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in read_lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        yield _Mount(_unescape(fields[4]), _unescape(fields[3]), version, tuple(kind[2].split(",")))


def _own_path(root: Path, controller: str | None) -> PurePosixPath | None:
    """Return this process's path in the v2 hierarchy (controller None) or in that of a v1 controller."""
    for line in read_lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = line.split(":", 2)
        if (hierarchy == "0") if controller is None else (controller in controllers.split(",")):
            return PurePosixPath(path)
    return None


def _unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes (`\040` is a space)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
