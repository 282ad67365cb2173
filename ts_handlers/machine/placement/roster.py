"""A worker's place among the workers of this machine, steady while they come and go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from ts_handlers.machine.placement.membership import Member, Membership

STARTUP_S = 120
"""So long a group counts as large as its operator declared, though not all of its workers are there yet."""

ABSENCE_S = 15.0
"""So long a worker keeps its place after it is first missed: TorchServe starts a killed one again within seconds."""


class Roster:
    """Counts the workers and gives this one its place.

    All workers read the same names, so they agree without talking to each other. A group that is starting counts as
    complete from the beginning, so that its first worker does not take everything; a worker that is gone keeps its place
    for a while, so that the others do not move when it is only restarted. Places go by model, then by slot.

    Args:
        membership: This worker's own.
        counts: Whether another worker is on the same CPUs.
        monotonic: A clock in seconds, for absences.
        since_boot: A clock in seconds since boot, for startups.
        net_unix: The kernel's table of sockets.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        counts: Callable[[Member], bool] = lambda _: True,
        monotonic: Callable[[], float] = time.monotonic,
        since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        net_unix: Path = Path("/proc/net/unix"),
    ) -> None:
        self._membership = membership
        self._counts = counts
        self._monotonic, self._since_boot = monotonic, since_boot
        self._net_unix = net_unix
        self._model_of: dict[int, str] = {}
        self._missed_at: dict[int, float] = {}
        self._complete: set[tuple[int, int, str]] = set()

    def look(self) -> tuple[int, int]:
        """Return this worker's place, from 0, and the number of workers.

        Raises:
            OSError: The kernel's table cannot be read.
        """
        own = self._membership.member
        members = [each for each in self._membership.members(self._net_unix) if each == own or self._counts(each)]
        self._remember({member.slot: member.announced.model for member in members})
        order = sorted((model, slot) for slot, model in self._model_of.items())
        num_workers = max(len(order), len(members) + self._num_missing(members))
        return order.index((own.announced.model, own.slot)), num_workers

    def _remember(self, living: dict[int, str]) -> None:
        """Keep who lives, and for a while who is missed."""
        now = self._monotonic()
        missed = self._model_of.keys() - living.keys()
        self._missed_at = {slot: self._missed_at.get(slot, now) for slot in missed}
        gone = {slot for slot, since in self._missed_at.items() if now - since >= ABSENCE_S}
        self._model_of = {slot: model for slot, model in (self._model_of | living).items() if slot not in gone}

    def _num_missing(self, members: Collection[Member]) -> int:
        """Return how many workers of starting groups are still to come."""
        groups = defaultdict(list)
        for member in members:
            groups[member.announced.group].append(member.announced)
        missing = 0
        for group, announced in groups.items():
            expected = max(each.expected for each in announced)
            if len(announced) >= expected:
                self._complete.add(group)
            started_s = min(each.started_s for each in announced)
            if group not in self._complete and self._since_boot() - started_s < STARTUP_S:
                missing += expected - len(announced)
        return missing
