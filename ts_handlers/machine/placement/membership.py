"""Which workers live on this machine: each holds names in the kernel's abstract socket namespace.

A name belongs to one process and is gone the moment that process ends, however it ends, so there is nothing to clean up
and nobody to ask: no files, no locks, no daemon. The names are seen by every user and every TorchServe of one network
namespace, that is of a container or a pod; they hold a scope too, so that servers that share a network but have CPU limits
of their own do not count each other.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.errors import ConfigError
from ts_handlers.machine.cgroup import read_lines

SCOPE_ENV = "TS_HANDLERS_SCOPE"
"""Environment variable that names the workers that share CPUs, where namespaces and cgroups do not tell them apart."""

MAX_SLOTS = 4096

_PREFIX = "ts_handlers"
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(
    r"@ts_handlers/(?P<scope>\w+)/worker/(?P<slot>\d+)/(?P<model>\w+)/"
    r"(?P<parent_pid>\d+)\.(?P<parent_started_s>\d+)/(?P<is_of_model>[01])/(?P<expected>\d+)/(?P<started_s>\d+)"
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a worker says of itself.

    Attributes:
        model: A digest of its model's name and version; hexadecimal.
        parent_pid: Process id of its TorchServe.
        parent_started_s: When that started, in whole seconds since boot.
        is_of_model: Whether `expected` counts this model's workers only, and not all of that TorchServe's.
        expected: Workers to come, as the operator declared; 0 where nobody did.
        started_s: From when on they are waited for, in whole seconds since boot.
    """

    model: str
    parent_pid: int
    parent_started_s: int
    is_of_model: bool
    expected: int
    started_s: int

    @property
    def group(self) -> tuple[int, int, str]:
        """The workers that `expected` counts together."""
        return self.parent_pid, self.parent_started_s, self.model if self.is_of_model else ""


@dataclass(frozen=True, slots=True)
class Member:
    """One worker.

    Attributes:
        slot: Its number, the lowest that was free when it joined.
        announced: What it says of itself.
    """

    slot: int
    announced: Announcement


class Membership:
    """Holds this worker's slot until the process ends, and sees who holds the others.

    Attributes:
        member: This worker.

    Args:
        announced: What to say of this worker.
        scope: Workers of one scope share CPUs; see `machine_scope`.

    Raises:
        OSError: The kernel refuses abstract sockets.
    """

    def __init__(self, announced: Announcement, scope: str) -> None:
        self._scope = scope
        self._held: list[socket.socket] = []
        slot = next(slot for slot in itertools.count() if self._hold(f"slot/{slot}", last=slot >= MAX_SLOTS))
        self.member = Member(slot, announced)
        start = f"{announced.parent_pid}.{announced.parent_started_s}"
        numbers = f"{announced.is_of_model:d}/{announced.expected}/{announced.started_s}"
        self._hold(f"worker/{slot}/{announced.model}/{start}/{numbers}", last=True)

    def members(self, net_unix: Path = Path("/proc/net/unix")) -> frozenset[Member]:
        """Return every living worker of the scope, this one included.

        Args:
            net_unix: The kernel's table of sockets.

        Raises:
            OSError: It cannot be read.
        """
        lines = net_unix.read_text(encoding="utf-8", errors="replace").splitlines()
        matches = (_NAME.fullmatch(line.rpartition(" ")[2]) for line in lines)
        return frozenset(_member(match) for match in matches if match and match["scope"] == self._scope) | {self.member}

    def leave(self) -> None:
        """Give the slot up; ending the process does the same."""
        for held in self._held:
            held.close()
        self._held.clear()

    def _hold(self, name: str, *, last: bool) -> bool:
        """Take a name; False where somebody has it."""
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0{_PREFIX}/{self._scope}/{name}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE or last:
                raise
            return False
        self._held.append(holder)
        return True


def machine_scope(root: Path = Path("/")) -> str:
    """Return a digest of what the workers on the same CPUs have in common.

    That is TS_HANDLERS_SCOPE where it is set, else the PID and cgroup namespaces and the cgroup: one container, or one
    systemd unit.

    Raises:
        ConfigError: TS_HANDLERS_SCOPE holds other characters than letters, digits, dots, dashes and underscores.
    """
    named = os.environ.get(SCOPE_ENV)
    if named is not None:
        if not _SCOPE.fullmatch(named):
            raise ConfigError(f"{SCOPE_ENV} is {named!r}; use up to 64 letters, digits, dots, dashes and underscores")
        return digest(named)
    namespaces = [_namespace(root / "proc/self/ns" / kind) for kind in ("pid", "cgroup")]
    return digest("\n".join([*namespaces, *read_lines(root / "proc/self/cgroup")]))


def digest(text: str) -> str:
    """Return 12 hexadecimal digits: names of sockets have 107 bytes at most."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _member(match: re.Match[str]) -> Member:
    announced = Announcement(
        model=match["model"],
        parent_pid=int(match["parent_pid"]),
        parent_started_s=int(match["parent_started_s"]),
        is_of_model=match["is_of_model"] == "1",
        expected=int(match["expected"]),
        started_s=int(match["started_s"]),
    )
    return Member(int(match["slot"]), announced)


def _namespace(link: Path) -> str:
    try:
        return str(link.stat().st_ino)
    except OSError:  # an old kernel without this kind of namespace
        return "0"
