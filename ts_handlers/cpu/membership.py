"""Which workers live on this machine: each holds names in the kernel's abstract socket namespace.

A name belongs to one process and is gone the moment that process ends, however it ends, so there is nothing to clean up
and nobody to ask: no files, no locks, no daemon. The names are seen by every user and every TorchServe of one network
namespace, that is of a container or a pod; they hold the PID and cgroup namespaces too, so that containers that share a
network but have CPU limits of their own do not count each other.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.errors import ConfigError

SCOPE_ENV = "TS_HANDLERS_SCOPE"
"""Environment variable that names the workers that share CPUs, where the namespaces do not tell them apart."""

MAX_SLOTS = 4096

_PREFIX = "ts_handlers"
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,40}")
_NAME = re.compile(
    r"@ts_handlers/(?P<scope>[^/]+)/worker/"
    r"(?P<slot>\d+)/(?P<model>[^/]+)/(?P<group>[^/]+)/(?P<expected>\d+)/(?P<started_s>\d+)"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One worker, as it announces itself.

    Attributes:
        slot: Its number, the lowest that was free when it joined.
        model: A digest of its model's name and version.
        group: The workers it was started with: one TorchServe's, or one model's.
        expected: Workers of that group, as its operator declared; 0 where nobody did.
        started_s: When the group's TorchServe started, in whole seconds since boot.
    """

    slot: int
    model: str
    group: str
    expected: int
    started_s: int


class Membership:
    """Holds this worker's slot until the process ends, and sees who holds the others.

    Attributes:
        member: This worker.

    Args:
        model: See `Member`; this and the group without slashes.
        group: See `Member`.
        expected: See `Member`.
        started_s: See `Member`.
        scope: Workers of one scope share CPUs.

    Raises:
        OSError: The kernel refuses abstract sockets.
    """

    def __init__(self, model: str, group: str, expected: int, started_s: int, scope: str) -> None:
        self._scope = scope
        self._held: list[socket.socket] = []
        slot = next(slot for slot in itertools.count() if self._hold(f"slot/{slot}", last=slot >= MAX_SLOTS))
        self.member = Member(slot, model, group, expected, started_s)
        self._hold(f"worker/{slot}/{model}/{group}/{expected}/{started_s}", last=True)

    def members(self, net_unix: Path = Path("/proc/net/unix")) -> frozenset[Member]:
        """Return every living worker of the scope, this one included.

        Args:
            net_unix: The kernel's table of sockets.

        Raises:
            OSError: It cannot be read.
        """
        found = {self.member}
        for line in net_unix.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _NAME.fullmatch(line.rpartition(" ")[2])
            if match and match["scope"] == self._scope:
                numbers = (int(match["expected"]), int(match["started_s"]))
                found.add(Member(int(match["slot"]), match["model"], match["group"], *numbers))
        return frozenset(found)

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
    """Return what the workers of one container have in common: TS_HANDLERS_SCOPE, or its PID and cgroup namespaces.

    Raises:
        ConfigError: TS_HANDLERS_SCOPE holds other characters than letters, digits, dots, dashes and underscores.
    """
    named = os.environ.get(SCOPE_ENV)
    if named is not None:
        if not _SCOPE.fullmatch(named):
            raise ConfigError(f"{SCOPE_ENV} is {named!r}; use up to 40 letters, digits, dots, dashes and underscores")
        return named
    return "-".join(_namespace(root / "proc/self/ns" / kind) for kind in ("pid", "cgroup"))


def _namespace(link: Path) -> str:
    try:
        return str(link.stat().st_ino)
    except OSError:  # an old kernel without this kind of namespace
        return "0"
