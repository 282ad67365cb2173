"""From what was read of TorchServe, look by look, to what is observed of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.operate.autoscale.decide import Observation
from ts_handlers.operate.torchserve.client import ModelStatus
from ts_handlers.operate.torchserve.metrics import Counters


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one model.

    Attributes:
        time_s: When.
        status: Its workers and its queue.
        counters: What the metrics had counted; None where they could not be read.
    """

    time_s: float
    status: ModelStatus
    counters: Counters | None


class Window:
    """The last looks at one model.

    It starts anew whenever the number of ready workers changes, for a rate is one of so many workers, and when counters
    have gone back, for then TorchServe was started again.

    Args:
        model: The model's name.
        seconds: How far back it reaches.
        load_time_s: How long a worker takes to load, until TorchServe has measured it.
    """

    def __init__(self, model: str, seconds: float, load_time_s: float) -> None:
        self._model, self._seconds = model, seconds
        self._load_time_s = load_time_s
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> Observation | None:
        """Take one look in and return what is observed; None where a rate needs another look."""
        if self._samples and not self._continues(self._samples[-1], sample):
            self._samples.clear()
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].time_s <= sample.time_s - self._seconds:
            self._samples.popleft()
        if sample.counters is not None:
            self._load_time_s = sample.counters.load_time_s.get(self._model, self._load_time_s)
            if len(self._samples) == 1:
                return None
        return self._observe(self._samples[0], sample)

    def _continues(self, before: Sample, now: Sample) -> bool:
        if before.status.num_ready != now.status.num_ready:
            return False
        if before.counters is None or now.counters is None:
            return before.counters is now.counters
        name = self._model
        return now.counters.requests.get(name, 0.0) >= before.counters.requests.get(name, 0.0)

    def _observe(self, first: Sample, now: Sample) -> Observation:
        """Compute means and rates over the window.

        In flight are those in the queue, which are counted, and those with a worker: by Little's law their mean number is
        the rate of their summed seconds. TorchServe counts what it refuses among a model's requests, and as 5xx of the whole
        server: they are taken off a model whose queue was seen more than half full, for a queue with room refuses none.
        """
        statuses = [sample.status for sample in self._samples]
        queued = sum(status.queued for status in statuses) / len(statuses)
        seconds = now.time_s - first.time_s
        in_service, rate, latency_ms, failed = 0.0, 0.0, None, 0.0
        if first.counters is not None and now.counters is not None and seconds > 0:
            before, after = first.counters, now.counters
            requests = self._of(after.requests) - self._of(before.requests)
            latency_s = self._of(after.latency_s) - self._of(before.latency_s)
            queue_s = self._of(after.queue_s) - self._of(before.queue_s)
            failures = after.failures - before.failures
            refused = failures if any(status.queued > status.queue_left for status in statuses) else 0.0
            answered = max(0.0, requests - refused - (now.status.queued - first.status.queued))
            in_service = max(0.0, latency_s - queue_s) / seconds
            rate, failed = answered / seconds, failures / seconds
            latency_ms = latency_s / answered * 1000 if answered >= 1 else None
        return Observation(
            time_s=now.time_s,
            workers=len(now.status.workers),
            ready=now.status.num_ready,
            in_flight=queued + in_service,
            queued=queued,
            rate=rate,
            latency_ms=latency_ms,
            load_time_s=self._load_time_s,
            failed=failed,
        )

    def _of(self, counts: Mapping[str, float]) -> float:
        return counts.get(self._model, 0.0)
