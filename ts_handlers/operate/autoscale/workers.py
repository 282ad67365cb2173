"""One model's workers: what is remembered of them, and how they are added, removed one by one, or given up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from ts_handlers.operate.autoscale.decide import Decision, Limit, State, changed, decide
from ts_handlers.operate.autoscale.observe import Sample, Window
from ts_handlers.operate.autoscale.remove import remove_workers
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import Settings
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve.client import ModelStatus, TorchServe
from ts_handlers.operate.torchserve.metrics import Counters

Start = Callable[[Callable[[], Any]], Future[Any]]

_STARTUP_SLACK_S = 60.0
"""A worker's process needs so long, beside the startupTimeout of its model, before it is given up."""

_GIVEN_UP_S = 300.0
"""No worker is added for so long after one could not be started."""


class _Removal(NamedTuple):
    """Workers that are being removed in the background: how many there were, why, and what comes of it."""

    before: int
    decision: Decision
    result: Future[tuple[int, str]]


class Workers:
    """The workers of one model. Nothing here waits for them.

    Attributes:
        name: The model's name.
        settings: The model's policy and costs.
        status: Its workers and its queue at the last look.
        decision: How many workers it should have; None where a rate needs another look, and while some are removed.
        num_claimed: Workers that other models must leave room for.

    Args:
        name: The model's name.
        settings: The configuration.
        server: TorchServe.
        report: Where changes are told.
        clock: Seconds.
        start: Starts in the background what may take long.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        server: TorchServe,
        report: Report,
        *,
        clock: Callable[[], float],
        start: Start,
    ) -> None:
        self.name, self.settings = name, settings.models[name]
        self.status = ModelStatus((), 0, 0, 0.0)
        self.decision: Decision | None = None
        self.num_claimed = 0
        self._server, self._report, self._clock, self._start = server, report, clock, start
        self._window = Window(name, settings.window_s, self.settings.load_time_s)
        self._hold_timeout_s = settings.hold_timeout_s
        self._state = State()
        self._removal: _Removal | None = None
        self._starting_since_s: float | None = None
        self._given_up_until_s = self._not_removed_until_s = -math.inf

    def read(self) -> None:
        """Look at the model; what there is, it claims.

        Raises:
            TorchServeError: The server does not describe it.
        """
        self._follow_removal()
        self.status = self._server.status(self.name)
        self.claim_present()

    def claim_present(self) -> None:
        """Claim the workers there are, those included that are being removed, and no others."""
        before = 0 if self._removal is None else self._removal.before
        self.num_claimed = max(before, len(self.status.workers))

    @property
    def memory_bytes(self) -> int:
        """Memory of each worker as configured, else as TorchServe has measured it; 0 while nobody knows."""
        if self.settings.memory_per_worker_mb is not None:
            return self.settings.memory_per_worker_mb * MIB
        return max((worker.memory_bytes for worker in self.status.workers), default=0)

    def decide(self, counters: Counters | None, limit: Limit) -> None:
        """Decide how many there should be, and claim those, the fewest at least."""
        self.decision, wanted = None, self.settings.min_workers
        seen = self._window.add(Sample(self._clock(), self.status, counters))
        if seen is not None:
            if seen.time_s < self._given_up_until_s and seen.workers < limit.workers:
                limit = Limit(seen.workers, "a worker could not be started lately")
            decision, self._state = decide(self.settings, self._state, seen, limit)
            self._report.observed(self.name, seen, decision)
            wanted = max(wanted, decision.workers)
            self.decision = decision if self._removal is None else None
        self.num_claimed = max(self.num_claimed, wanted)

    def act(self, most: Limit) -> None:
        """Do what was decided.

        Args:
            most: The workers that there are CPUs for now, and what keeps it from having more.

        Raises:
            TorchServeError: The server does not do it.
        """
        if self.decision is None:
            return
        if self.decision.change > 0:
            self._add(self.decision, most)
        elif self.decision.change < 0:
            self._begin_removal(self.decision)
        else:
            self._watch_start()

    def tell_plan(self) -> None:
        """Say once what would be done."""
        decision, before = self.decision, len(self.status.workers)
        if decision is None:
            return
        if decision.change == 0:
            self._report.forget(f"plan {self.name}")
            return
        what = f"{self.name}: would go from {before} to {decision.workers} workers ({decision.cause})"
        key = f"{before} {decision.workers} {decision.cause}"
        self._report.tell(f"plan {self.name}", f"{what}: {decision.reason}", key=key)

    def _add(self, decision: Decision, most: Limit) -> None:
        before, workers = len(self.status.workers), min(decision.workers, most.workers)
        if workers <= before:
            text = f"{self.name}: {decision.workers} workers wanted, {most.reason}"
            self._report.tell(f"waiting {self.name}", text)
            return
        self._server.scale(self.name, workers)
        self.num_claimed = workers
        self._report.forget(f"waiting {self.name}")
        self._tell_change(before, workers, decision)

    def _begin_removal(self, decision: Decision) -> None:
        """Remove workers in the background, each while it is held: a busy one can take long to hold."""
        if self._clock() < self._not_removed_until_s:
            return
        count = -decision.change
        result = self._start(lambda: remove_workers(self._server, self.name, count, self._hold_timeout_s))
        self._removal = _Removal(len(self.status.workers), decision, result)

    def _follow_removal(self) -> None:
        """Say what has come of a removal, once it is over."""
        if self._removal is None or not self._removal.result.done():
            return
        before, decision, result = self._removal
        self._removal = None
        num_removed, why_not = result.result()
        if num_removed:
            self._report.forget(f"removal {self.name}")
            self._tell_change(before, before - num_removed, decision)
        if why_not:
            self._not_removed_until_s = self._clock() + self._hold_timeout_s
            self._report.tell(f"removal {self.name}", why_not, is_problem=True)

    def _watch_start(self) -> None:
        """Give up a new worker that does not get ready in time: TorchServe would try it again and again."""
        workers, now = self.status.workers, self._clock()
        if self.status.num_ready == len(workers):
            self._starting_since_s = None
            return
        if self._starting_since_s is None:
            self._starting_since_s = now
        seconds = now - self._starting_since_s
        if seconds < self.status.startup_timeout_s + _STARTUP_SLACK_S:
            return
        if workers[-1].is_ready or len(workers) <= self.settings.min_workers:
            text = f"{self.name}: a worker is not ready after {seconds:.0f} s"
        else:
            self._server.scale(self.name, len(workers) - 1)
            self._starting_since_s, self._given_up_until_s = None, now + _GIVEN_UP_S
            text = (
                f"{self.name}: worker {workers[-1].name} was not ready after {seconds:.0f} s and is removed; none is added "
                f"for {_GIVEN_UP_S:.0f} s; see TorchServe's logs"
            )
        self._report.tell(f"start {self.name}", text, is_problem=True)

    def _tell_change(self, before: int, after: int, decision: Decision) -> None:
        self._state = changed(self._state, self._clock())
        self._report.changed(self.name, before, after, decision)


def claimed_cpus(models: Iterable[Workers]) -> float:
    """Return the CPUs of all workers that are claimed."""
    return sum(model.num_claimed * model.settings.cpus_per_worker for model in models)


def most_workers(model: Workers, others: Sequence[Workers], cpus: float, memory_bytes: float | None = None) -> Limit:
    """Return how many workers a model may have beside those that the others claim.

    Args:
        model: The model.
        others: The other models.
        cpus: CPUs for all workers together.
        memory_bytes: Bytes for all workers together; None where they are not known.
    """
    num_others, each = sum(other.num_claimed for other in others), model.settings.cpus_per_worker
    beside = f", beside {num_others} of other models" if num_others else ""
    limit = Limit(_whole((cpus - claimed_cpus(others)) / each), f"{cpus:g} CPUs for workers, {each:g} for each{beside}")
    if memory_bytes is None or model.memory_bytes == 0:
        return limit
    free_bytes = memory_bytes - sum(other.num_claimed * other.memory_bytes for other in others)
    by_memory = _whole(free_bytes / model.memory_bytes)
    if by_memory >= limit.workers:
        return limit
    return Limit(
        by_memory, f"{memory_bytes / MIB:.0f} MiB for workers, {model.memory_bytes / MIB:.0f} for each{beside}"
    )


def _whole(workers: float) -> int:
    return max(0, math.floor(workers + 1e-9))
