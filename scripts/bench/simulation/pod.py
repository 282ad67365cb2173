"""One pod: a queue and the workers that take batches from it, in exact times."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace


@dataclass(slots=True)
class Answers:
    """Every answer of a run, in the order in which batches started, and when requests arrived that got 503."""

    arrived: array[float] = field(default_factory=lambda: array("d"))
    finished: array[float] = field(default_factory=lambda: array("d"))
    rejected: array[float] = field(default_factory=lambda: array("d"))


class Pod:
    """A server with workers that take batches from one queue, first come, first served.

    TorchServe gives a free worker what waits, up to the batch size; one worker at a time does so, and none waits for more
    than a millisecond, which is part of the measured time of a batch.

    Args:
        number: In order of creation.
        created: When it was asked for.
        ready: When it gets requests.
        workers: How many it starts with; each has a CPU.
        batch_seconds: Mean time of a batch by its size.
        noise: Factors of these times, one a batch.
        job_queue_size: Requests that may wait.
        answers: Where answers go.
    """

    def __init__(
        self,
        number: int,
        created: float,
        ready: float,
        workers: int,
        *,
        batch_seconds: tuple[float, ...],
        noise: Iterator[float],
        job_queue_size: int,
        answers: Answers,
    ) -> None:
        self.number, self.created, self.ready = number, created, ready
        self.cpus = float(workers)
        self.ended: float | None = None
        self.completed = 0
        self.num_rejected = 0
        self.queue_seconds = 0.0
        self.latency_seconds = 0.0
        self._batch_seconds, self._noise, self._answers = batch_seconds, noise, answers
        self._batch_size, self._job_queue_size = len(batch_seconds) - 1, job_queue_size
        self._free = [ready] * workers
        self._waiting: deque[tuple[float, float]] = deque()
        self._running: list[tuple[float, int, float, float]] = []
        self._started_seconds = 0.0
        self.num_admitted = 0
        self._sum_entered = 0.0
        self._sum_finished = 0.0

    @property
    def num_workers(self) -> int:
        """Workers that take work, also those whose loading has not ended."""
        return len(self._free)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, after `advance`."""
        return len(self._waiting)

    def is_ready(self, now: float) -> bool:
        """Say whether it is among the endpoints."""
        return self.ready <= now and self.ended is None

    def admit(self, entered: float, arrived: float) -> None:
        """Take a request that arrived somewhere at `arrived` and here at `entered`, or answer it with 503."""
        self.advance(entered)
        if len(self._waiting) >= self._job_queue_size:
            self._answers.rejected.append(arrived)
            self.num_rejected += 1
            return
        self.num_admitted += 1
        self._sum_entered += entered
        self._waiting.append((entered, arrived))

    def advance(self, now: float) -> None:
        """Start every batch that starts before `now`."""
        waiting, free = self._waiting, self._free
        while waiting and free:
            start = max(free[0], waiting[0][0])
            if start >= now:
                return
            size = min(len(waiting), self._batch_size)
            seconds = self._batch_seconds[size] * next(self._noise)
            finish = start + seconds
            heapreplace(free, finish)
            self._started_seconds += seconds
            self._take(size, start, finish)

    def settle(self, now: float) -> None:
        """Advance, and count what was done by `now`: TorchServe's counters move when a request is complete."""
        self.advance(now)
        running = self._running
        while running and running[0][0] <= now:
            finish, size, queue_seconds, latency_seconds = heappop(running)
            self.completed += size
            self._sum_finished += size * finish
            self.queue_seconds += queue_seconds
            self.latency_seconds += latency_seconds

    def num_in_flight(self, now: float) -> int:
        """Return the requests that are here at `now`: waiting or in a batch. Settles."""
        self.settle(now)
        return self.num_admitted - self.completed

    def in_flight_seconds(self, now: float) -> float:
        """Return the integral of the requests in flight from the start to `now`, after `settle(now)`."""
        return self._sum_finished + (self.num_admitted - self.completed) * now - self._sum_entered

    def busy_seconds(self, now: float) -> float:
        """Return the CPU time that batches used up to `now`, after `settle(now)`."""
        return self._started_seconds - sum(batch[0] - now for batch in self._running)

    def next_finish(self) -> float:
        """Return when the next running batch ends; infinity if none runs."""
        return self._running[0][0] if self._running else float("inf")

    def add_worker(self, ready: float) -> None:
        """Let one worker more take work from `ready` on."""
        heappush(self._free, ready)

    def remove_worker(self, now: float) -> float:
        """Take away the worker that is free first; return when it ends what it does."""
        self.advance(now)
        return max(now, heappop(self._free))

    def _take(self, size: int, start: float, finish: float) -> None:
        jobs = [self._waiting.popleft() for _ in range(size)]
        self._answers.arrived.extend([arrived for _, arrived in jobs])
        self._answers.finished.extend([finish] * size)
        entered = sum(entered for entered, _ in jobs)
        heappush(self._running, (finish, size, size * start - entered, size * finish - entered))
