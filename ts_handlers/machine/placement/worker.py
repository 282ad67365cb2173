"""This worker's place: how many share the CPUs, which of them are its own, how many threads it runs; and their changes.

The CPUs that may be used are read from the frontend, which is never bound by us: that way a changed cpuset is seen, which
our own mask would hide.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.machine.affinity import bind_memory, bind_threads, bound_cpus
from ts_handlers.machine.budget import CpuBudget, cpu_budget
from ts_handlers.machine.placement.membership import SCOPE_ENV, Announcement, Member, Membership, digest, machine_scope
from ts_handlers.machine.placement.parent import Parent
from ts_handlers.machine.placement.roster import Roster
from ts_handlers.machine.placement.slices import slice_cpus
from ts_handlers.machine.share import CpuShare, cpu_share
from ts_handlers.machine.topology import Core, format_cpu_list, read_topology

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
"""A look costs a millisecond or less; at most one in so many seconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """What was decided for this worker.

    Attributes:
        budget: CPUs of the machine that all workers share.
        share: This worker's part of them.
        cpus: CPUs it runs on, ascending.
        index: Its place among the workers, from 0; None where it stands back.
    """

    budget: CpuBudget
    share: CpuShare
    cpus: tuple[int, ...]
    index: int | None

    def describe(self) -> str:
        """Say it in a few words."""
        threads = f"{self.share.threads} thread{'s' if self.share.threads > 1 else ''}"
        place = "" if self.index is None else f"place {self.index + 1} of "
        return (
            f"{threads} on CPUs {format_cpu_list(self.cpus)} ({place}{self.share.num_workers} workers, "
            f"{self.share.source}; {self.budget.describe()})"
        )


@dataclass(frozen=True, slots=True)
class Declared:
    """How many workers there will be, as far as somebody said.

    Attributes:
        num_workers: Their number.
        source: Who said so.
        is_of_model: Whether that speaks of this model's workers only, and not of all of the server's.
    """

    num_workers: int
    source: str
    is_of_model: bool = False


class Placement:
    """Takes a place when the worker starts, and follows workers, cpuset and quota while it runs.

    It stands back where somebody else has bound the worker: torch's CPU launcher, or whoever started it on fewer CPUs than
    its frontend has, or changed its CPUs later. Then those are the worker's own and are left as they are.

    Attributes:
        place: What holds now.

    Args:
        model: The model's name and version.
        declared: How many workers to expect.
        threads: Threads the operator asked for; None for floor(share).
        owns_process: Whether this process is one worker's alone, so that it is counted and bound. A test's is not.
        is_binding: Whether to bind threads to CPUs.
        root: Where `proc` and `sys` are found; a fixture's folder in tests.
        monotonic: A clock in seconds.

    Raises:
        ConfigError: The environment names a scope that is none.
    """

    def __init__(
        self,
        model: str,
        declared: Declared,
        *,
        threads: int | None = None,
        owns_process: bool = True,
        is_binding: bool = True,
        root: Path = Path("/"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = digest(model)
        self._declared, self._threads = declared, threads
        self._root, self._monotonic = root, monotonic
        self._parent = Parent.of_this_process(root)
        self._usable = bound_cpus()
        self._bound_by = self._who_bound() if owns_process else ""
        self._roster = self._join() if owns_process and not self._bound_by else None
        self._is_binding = is_binding and self._roster is not None
        self._is_bound = self._is_changed = False
        self._memory = ""
        self._topology: tuple[tuple[int, ...], tuple[Core, ...]] = ((), ())
        self._next_look = monotonic() + LOOK_INTERVAL_S
        self.place = self._decide()
        self._bind(self.place)

    def describe(self) -> str:
        """Say what holds now, in a few words."""
        notes = [f"left as {self._bound_by} set it"] if self._bound_by else []
        notes += [self._memory] if self._memory else []
        notes += ["threads are not bound to them"] if self._is_binding and not self._is_bound else []
        return "; ".join([self.place.describe(), *notes])

    def follow(self) -> Place | None:
        """Look whether workers, cpuset or quota have changed; return the new place, None where nothing did.

        Threads are bound here; their number is the caller's to change.
        """
        if self._monotonic() < self._next_look:
            return None
        self._next_look = self._monotonic() + LOOK_INTERVAL_S
        try:
            place = self._decide()
        except (OSError, ValueError) as error:  # a file of the kernel's that cannot be read now
            _log_once("CPUs cannot be followed, what was decided stays: %s", error)
            return None
        if self._is_bound and place.cpus == self.place.cpus and self._is_disturbed():
            self._stand_back()
            place = self._decide()
        if place == self.place and (self._is_bound or not self._is_binding):
            return None
        if place.budget.affinity != self.place.budget.affinity or place.cpus != self.place.cpus or not self._is_bound:
            self._bind(place)
        if place == self.place:
            return None
        before, self.place = self.place, place
        logger.info("ts_handlers: now %s; before: %s", self.describe(), before.describe())
        return place

    def _who_bound(self) -> str:
        if self._parent.is_launcher:
            return "torch's CPU launcher"
        parent = self._parent.affinity()
        is_narrower = parent is not None and set(self._usable) < set(parent)
        return "whoever started this worker on fewer CPUs than TorchServe" if is_narrower else ""

    def _join(self) -> Roster | None:
        is_of_model = self._declared.is_of_model
        announced = Announcement(
            model=self._model,
            parent_pid=self._parent.pid,
            parent_started_s=self._parent.started_s,
            is_of_model=is_of_model,
            expected=self._declared.num_workers,
            started_s=int(time.clock_gettime(time.CLOCK_BOOTTIME)) if is_of_model else self._parent.started_s,
        )
        scope = machine_scope(self._root)
        try:
            roster = Roster(Membership(announced, scope), counts=self._shares_cpus, monotonic=self._monotonic)
            roster.look()
        except OSError as error:
            _log_once("workers cannot see each other, so none is bound to CPUs: %s", error)
            return None
        return roster

    def _shares_cpus(self, member: Member) -> bool:
        """Say whether another worker's TorchServe has the same CPUs: one that was started on others is not counted."""
        parent = member.announced.parent_pid
        if parent == self._parent.pid or SCOPE_ENV in os.environ:
            return True
        theirs = Parent(parent, 0, is_launcher=False).affinity()
        return theirs is None or theirs == (self._parent.affinity() or self._usable)

    def _decide(self) -> Place:
        if self._roster is not None and not self._bound_by:
            self._usable = self._parent.affinity() or self._usable
        budget = cpu_budget(self._root, self._usable)
        index, num_workers, source = None, self._declared.num_workers, self._declared.source
        if self._roster is not None:
            index, num_workers = self._roster.look()
            source = "counted"
        share = cpu_share(budget, num_workers, threads=self._threads, source=source, is_bound=bool(self._bound_by))
        if not self._is_binding or index is None:
            return Place(budget, share, budget.affinity, None)
        fair_threads = max(1, math.floor(share.cpus))
        cpus = slice_cpus(self._cores(budget), index, num_workers, fair_threads, share.threads)
        return Place(budget, share, cpus, index)

    def _cores(self, budget: CpuBudget) -> tuple[Core, ...]:
        """Return the usable cores; sysfs is read again only where other CPUs are usable than last time."""
        if budget.affinity != self._topology[0]:
            self._topology = (budget.affinity, read_topology(budget.affinity, self._root))
        return self._topology[1]

    def _bind(self, place: Place) -> None:
        if not self._is_binding:
            return
        self._is_bound = False
        try:
            bind_threads(place.cpus)
        except OSError as error:
            _log_once("threads are not bound to CPUs %s: %s", format_cpu_list(place.cpus), error)
            return
        self._is_bound, self._is_changed = True, False
        self._memory = bind_memory(self._cores(place.budget), place.cpus)

    def _is_disturbed(self) -> bool:
        """Say whether something else has changed our CPUs: twice in a row, for once can be a cpuset that is changing.

        Kernels before Linux 6.2 give a process all CPUs of its cpuset whenever that is written: then ours are set again.
        """
        now = bound_cpus()
        if now == self._usable != self.place.cpus:
            self._is_bound = False
        was_changed, self._is_changed = self._is_changed, self._is_bound and now != self.place.cpus
        return was_changed and self._is_changed

    def _stand_back(self) -> None:
        self._usable = bound_cpus()
        self._bound_by, self._is_binding, self._is_bound = "somebody", False, False
        logger.warning(
            "ts_handlers: the CPUs of this worker were changed from %s to %s by something else; they are left so",
            format_cpu_list(self.place.cpus),
            format_cpu_list(self._usable),
        )


def _log_once(message: str, *arguments: object) -> None:
    """Log a warning the first time its text is met."""
    if message not in _logged:
        _logged.add(message)
        logger.warning(f"ts_handlers: {message}", *arguments)


_logged: set[str] = set()
