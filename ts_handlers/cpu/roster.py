"""A worker's place among the workers of this machine, steady while they come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ts_handlers.cpu.membership import Member, Membership

STARTUP_S = 120
"""So long after its TorchServe started, a group counts as large as its operator declared, though not all are there yet."""

ABSENCE_S = 15.0
"""So long a missing worker keeps its place: TorchServe starts a killed one again within seconds."""


class Roster:
    """Counts the workers and gives this one its place.

    All workers read the same names, so they agree without talking to each other. A group that is starting counts as
    complete from the beginning, so that its first worker does not take everything; a worker that is gone keeps its place
    for a while, so that the others do not move when it is only restarted. Places go by model, then by slot.

    Args:
        membership: This worker's own.
        monotonic: A clock in seconds, for absences.
        since_boot: A clock in seconds since boot, for startups.
        net_unix: The kernel's table of sockets.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        net_unix: Path = Path("/proc/net/unix"),
    ) -> None:
        self._membership = membership
        self._monotonic, self._since_boot = monotonic, since_boot
        self._net_unix = net_unix
        self._last_seen: dict[int, tuple[str, float]] = {}
        self._complete: set[str] = set()

    def look(self) -> tuple[int, int]:
        """Return this worker's place, from 0, and the number of workers.

        Raises:
            OSError: The kernel's table cannot be read.
        """
        members = self._membership.members(self._net_unix)
        now = self._monotonic()
        self._last_seen |= {member.slot: (member.model, now) for member in members}
        self._last_seen = {slot: seen for slot, seen in self._last_seen.items() if now - seen[1] < ABSENCE_S}
        order = sorted((model, slot) for slot, (model, _) in self._last_seen.items())
        own = self._membership.member
        return order.index((own.model, own.slot)), max(len(order), len(members) + self._num_missing(members))

    def _num_missing(self, members: frozenset[Member]) -> int:
        """Return how many workers of starting groups are still to come."""
        living = Counter(member.group for member in members)
        expected = {member.group: member for member in members}
        missing = 0
        for group, member in expected.items():
            if living[group] >= member.expected:
                self._complete.add(group)
            if group not in self._complete and self._since_boot() - member.started_s < STARTUP_S:
                missing += member.expected - living[group]
        return missing
