"""What Prometheus makes of the pods' counters: scrapes, rate() over a window, a recording rule.

Source of the arithmetic: Prometheus' documentation of rate(), and extrapolatedRate in promql/functions.go: the increase
between the first and the last sample of the window, extrapolated to its ends, but by no more than half a mean interval
where a sample is further from an end than 1.1 intervals, and never below zero.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from bench.simulation.cluster import Cluster

EXTRAPOLATION_FACTOR = 1.1


def rate(times: Sequence[float], values: Sequence[float], now: float, window_seconds: float) -> float | None:
    """Return the increase a second of a counter over the window that ends at `now`; None with fewer than two samples.

    Args:
        times: Of the samples, ascending.
        values: Of the counter, which starts at zero and is never reset here.
        now: End of the window.
        window_seconds: Its length.
    """
    start = now - window_seconds
    first, end = bisect_right(times, start), bisect_right(times, now)
    if end - first < 2:
        return None
    last = end - 1
    increase = values[last] - values[first]
    sampled = times[last] - times[first]
    interval = sampled / (last - first)
    to_start, to_end = times[first] - start, now - times[last]
    if increase > 0 and values[first] >= 0:
        to_start = min(to_start, sampled * values[first] / increase)
    near = interval * EXTRAPOLATION_FACTOR
    to_start = interval / 2 if to_start >= near else to_start
    to_end = interval / 2 if to_end >= near else to_end
    return increase * (sampled + to_start + to_end) / sampled / window_seconds


class QueueRule:
    """The recorded sum over the pods of rate(counter[window]): queue depth, or requests in flight, by Little's law.

    The counters hold summed times of requests and move when a request is complete, so this says what was, not what is: a
    pod whose queue has just filled shows nothing until those requests are done.

    Args:
        cluster: The pods.
        counter: `queue_seconds` or `latency_seconds`.
        scrape_seconds: Between two scrapes of a pod; each pod has its own offset.
        rule_seconds: Between two evaluations.
        window_seconds: Of rate().
    """

    def __init__(
        self,
        cluster: Cluster,
        counter: str,
        *,
        scrape_seconds: int = 15,
        rule_seconds: int = 15,
        window_seconds: int = 60,
    ) -> None:
        self._cluster, self._counter = cluster, counter
        self._scrape_seconds, self._rule_seconds, self._window_seconds = scrape_seconds, rule_seconds, window_seconds
        self._samples: dict[int, tuple[list[float], list[float]]] = {}
        self.value: float | None = None

    def step(self, now: float) -> None:
        """Scrape the pods whose turn it is, and evaluate the rule if it is time."""
        for pod in self._cluster.pods:
            if pod.ready <= now and (now + 7 * pod.number) % self._scrape_seconds == 0:
                times, values = self._samples.setdefault(pod.number, ([], []))
                times.append(now)
                values.append(getattr(pod, self._counter))
        if now % self._rule_seconds == 0:
            self.value = self._evaluate(now)

    def _evaluate(self, now: float) -> float | None:
        start = now - self._window_seconds
        rates = []
        for number, (times, values) in list(self._samples.items()):
            old = bisect_left(times, start)
            del times[:old], values[:old]
            if not times:
                del self._samples[number]
            found = rate(times, values, now, self._window_seconds)
            if found is not None:
                rates.append(found)
        return sum(rates) if rates else None
