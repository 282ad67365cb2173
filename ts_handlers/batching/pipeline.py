"""Images are decoded while the model computes on those that are ready: the two halves of a batch's work, interleaved.

A worker of T threads has T of them at work: each makes a call if one can be filled, and else transforms the next example.
So none waits for the last image before the first call is made. Where the model computes on a GPU, one call is made at a
time and all T threads decode meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.batching.calls import ModelCalls, Outputs, padding_ratio
from ts_handlers.batching.padding import ModelInput
from ts_handlers.batching.parallel import ParallelCalls
from ts_handlers.batching.row import Row, open_rows
from ts_handlers.batching.transforms import Transform, Transforms
from ts_handlers.runtime import Session


@dataclass(frozen=True, slots=True)
class Interleaved:
    """What a batch took.

    Attributes:
        run_s: Time in which at least one call was being made, in seconds.
        transform_s: The rest: examples were transformed, and no call could be filled.
        padding: Share of padding in what the model was fed.
    """

    run_s: float
    transform_s: float
    padding: float


def can_interleave(session: Session, rows: Sequence[Row], num_parallel: int) -> bool:
    """Say whether there is something to gain: threads beside the one that waits for a call, and examples for them.

    Args:
        session: The model.
        rows: Decoded rows.
        num_parallel: Threads the worker has.
    """
    num_examples = sum(len(row.examples) for row in open_rows(rows))
    if session.runs_on_device:
        return num_examples > 1
    return num_parallel > 1 and session.max_parallel > 1 and num_examples >= session.max_parallel


class Pipeline:
    """Transforms the examples of a batch and runs the model on them, at the same time.

    Args:
        transforms: Apply the handler's `transform`.
        calls: Make the model calls.
    """

    def __init__(self, transforms: Transforms, calls: ModelCalls) -> None:
        self._transforms, self._calls = transforms, calls
        self._threads = ParallelCalls("pipeline")

    def run(self, rows: Sequence[Row], transform: Transform, session: Session, num_parallel: int) -> Interleaved:
        """Fill `inputs` and `outputs` of each row; a row that fails keeps its error.

        Args:
            rows: Decoded rows.
            transform: The handler's.
            session: The model.
            num_parallel: Threads the worker has.
        """
        started = time.perf_counter()
        work = _Work(list(open_rows(rows)), partial(self._transforms.run_one, transform), self._calls, session)
        num_threads = num_parallel + 1 if session.runs_on_device else num_parallel
        self._threads.for_each(lambda _: work.share(), range(num_threads), num_threads)
        work.hand_out()
        run_s = work.clock.seconds
        padding = padding_ratio([item.value for item in work.inputs], work.plans)
        return Interleaved(run_s, time.perf_counter() - started - run_s, padding)


@dataclass(slots=True)
class _Input:
    """One input on its way through the model."""

    row: Row
    value: ModelInput
    outcome: Outputs | Exception | None = None


class _Clock:
    """Counts the time in which at least one call is being made; not safe for threads by itself."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.num_running = 0
        self._since = 0.0

    def start(self) -> None:
        if not self.num_running:
            self._since = time.perf_counter()
        self.num_running += 1

    def stop(self) -> None:
        self.num_running -= 1
        if not self.num_running:
            self.seconds += time.perf_counter() - self._since


class _Work:
    """What is left to do of one batch; threads take their share of it."""

    def __init__(
        self, rows: Sequence[Row], transform_one: Callable[[Row, int], None], calls: ModelCalls, session: Session
    ) -> None:
        for row in rows:
            row.inputs = [[] for _ in row.examples]
        self._rows, self._transform_one, self._calls, self._session = rows, transform_one, calls, session
        self._todo = deque((row, index) for row in rows for index in range(len(row.examples)))
        self._max_calls = session.max_parallel
        self._max_in_call = calls.max_in_call(session, len(self._todo))
        self._made: dict[tuple[int, int], list[_Input]] = {}
        self._ready: list[_Input] = []
        self._num_transforming = 0
        self._has_failed = False
        self._changed = threading.Condition()
        self.clock = _Clock()
        self.plans: list[BatchPlan] = []

    @property
    def inputs(self) -> list[_Input]:
        """All that were made."""
        return [item for items in self._made.values() for item in items]

    def share(self) -> None:
        """Do what can be done until nothing is left."""
        try:
            while (task := self._next()) is not None:
                task()
        except BaseException:
            with self._changed:
                self._has_failed = True  # or the others would wait for ever
                self._changed.notify_all()
            raise

    def hand_out(self) -> None:
        """Give the rows their outputs."""
        for row in open_rows(self._rows):
            made = [self._made[id(row), index] for index in range(len(row.examples))]
            row.outputs = [[row.take(item.outcome or {}) for item in items] for items in made]

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._has_failed:
                filled = self._fill_call() if self.clock.num_running < self._max_calls else None
                if filled is not None:
                    self.clock.start()
                    return partial(self._call, *filled)
                if self._todo:
                    self._num_transforming += 1
                    return partial(self._transform, *self._todo.popleft())
                if not self._num_transforming and not self._ready:
                    return None
                self._changed.wait()
            return None

    def _fill_call(self) -> tuple[list[_Input], BatchPlan] | None:
        """Take the inputs of one call: as many as a call may have, or, at the end, what is left."""
        self._ready = [item for item in self._ready if item.row.is_open]
        num_to_come = len(self._todo) + self._num_transforming
        if not self._ready or (num_to_come and len(self._ready) < self._max_in_call):
            return None
        plans = self._calls.plan_within([item.value for item in self._ready], self._max_in_call)
        plan = max(plans, key=lambda plan: plan.num_positions)
        if num_to_come and len(plan.indices) < self._max_in_call:
            return None
        chosen = [self._ready[index] for index in plan.indices]
        self._ready = [item for index, item in enumerate(self._ready) if index not in set(plan.indices)]
        self.plans.append(plan)
        return chosen, _renumbered(plan)

    def _transform(self, row: Row, index: int) -> None:
        made: list[_Input] = []
        try:
            self._transform_one(row, index)
            made = [_Input(row, value) for value in row.inputs[index]]
        finally:
            with self._changed:
                self._made[id(row), index] = made
                self._ready += made
                self._num_transforming -= 1
                self._changed.notify_all()

    def _call(self, chosen: Sequence[_Input], plan: BatchPlan) -> None:
        values, num_parallel = [item.value for item in chosen], self._session.max_parallel
        try:
            outcomes = self._calls.run_plan(self._session, values, plan, num_parallel)
            for item, outcome in zip(chosen, outcomes, strict=True):
                item.outcome = outcome
        finally:
            with self._changed:
                self.clock.stop()
                self._changed.notify_all()


def _renumbered(plan: BatchPlan) -> BatchPlan:
    """Return the plan of inputs that were taken out in its order."""
    return BatchPlan(tuple(range(len(plan.indices))), plan.padded_length, plan.num_fillers, plan.padded_size)
