"""What a worker measures: one catalogue, from which metrics.yaml is written and the worker's metrics are emitted.

Times are seconds, because TorchServe's histograms have the Prometheus client's default buckets (0.005 to 10). TorchServe
matches dimensions by position: ours come first, then ModelName and Level.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric as TorchServe's metrics.yaml describes it.

    Attributes:
        name: Its name, in the worker's log line and in Prometheus.
        kind: counter, gauge or histogram.
        unit: Unit of the value.
        dimensions: Its own dimensions; ModelName and Level follow them.
    """

    name: str
    kind: Kind
    unit: str
    dimensions: tuple[str, ...] = ()


DECODE_SECONDS = MetricSpec("ts_handlers_decode_seconds", "histogram", "s")
TRANSFORM_SECONDS = MetricSpec("ts_handlers_transform_seconds", "histogram", "s")
RUN_SECONDS = MetricSpec("ts_handlers_run_seconds", "histogram", "s")
FORMAT_SECONDS = MetricSpec("ts_handlers_format_seconds", "histogram", "s")
BATCH_SECONDS = MetricSpec("ts_handlers_batch_seconds", "histogram", "s")
BATCH_FILL = MetricSpec("ts_handlers_batch_fill_ratio", "histogram", "ratio")
PADDED_TOKENS = MetricSpec("ts_handlers_padded_token_ratio", "histogram", "ratio")
REJECTED_ROWS = MetricSpec("ts_handlers_rejected_rows_total", "counter", "count", ("Code",))

CATALOGUE: tuple[MetricSpec, ...] = (
    DECODE_SECONDS,
    TRANSFORM_SECONDS,
    RUN_SECONDS,
    FORMAT_SECONDS,
    BATCH_SECONDS,
    BATCH_FILL,
    PADDED_TOKENS,
    REJECTED_ROWS,
)


SAMPLED_EVERY_S = 0.25
"""Least time between two batches whose times and ratios are emitted, of one worker."""


class WorkerMetrics:
    """Emits the catalogue through TorchServe's metrics cache, which prints a line that the frontend counts.

    A line costs CPU time of the worker, which writes it, and of the frontend, which reads it: with eight workers on two CPUs
    a tenth of a small model's rate. So histograms, which say as much by a sample, take at most four batches a second;
    counters count everything.

    Args:
        cache: `context.metrics`.
        kinds: TorchServe's MetricTypes, by value.
        clock: Seconds, as time.perf_counter has them.
    """

    def __init__(self, cache: Any, kinds: Callable[[str], Any], clock: Callable[[], float] = time.perf_counter) -> None:
        self._model_name = str(cache.model_name)
        self._metrics = {spec.name: _register(cache, spec, kinds(spec.kind)) for spec in CATALOGUE}
        self._clock = clock
        self._sampled_at = -SAMPLED_EVERY_S
        self.is_sampled = True

    def begin_batch(self) -> None:
        """Decide whether the histograms take this batch."""
        now = self._clock()
        self.is_sampled = now - self._sampled_at >= SAMPLED_EVERY_S
        if self.is_sampled:
            self._sampled_at = now

    def observe(self, spec: MetricSpec, value: float, *dimensions: str) -> None:
        """Record one value, with the metric's own dimensions in order."""
        if self.is_sampled or spec.kind == "counter":
            self._metrics[spec.name].add_or_update(value, [*dimensions, self._model_name, "Model"])

    @contextmanager
    def timed(self, spec: MetricSpec) -> Iterator[None]:
        """Record how long the block takes, in seconds."""
        started = self._clock()
        yield
        self.observe(spec, round(self._clock() - started, 6))


_MOST_LINES = 100
"""More than a batch has: without the last line they are written all the same."""


class OneWrite(logging.Handler):
    """Writes the metric lines of a batch together.

    TorchServe's worker prints a line for each value, and each wakes a thread of the frontend, on CPUs that the workers
    want. Here they wait for the one that TorchServe prints last for a batch; the frontend reads the same lines. That last
    one is a gauge: it is left out where its batch is no sample.

    Args:
        source: The logger whose records are the lines.
        is_sampled: Says whether the batch at hand is a sample.
        last: What only the last line of a batch holds.
    """

    def __init__(
        self,
        source: logging.Logger,
        is_sampled: Callable[[], bool] = lambda: True,
        last: str = "[METRICS]PredictionTime.",
    ) -> None:
        super().__init__()
        self._source, self._is_sampled, self._last = source, is_sampled, last
        self._lines: list[str] = []
        source.addHandler(self)
        source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; write all with the last, or when they are many."""
        line = record.getMessage()
        is_last = self._last in line
        if not is_last or self._is_sampled():
            self._lines.append(line)
        if is_last or len(self._lines) >= _MOST_LINES:
            self.write()

    def write(self) -> None:
        """Write what is kept, as one record of the loggers above."""
        if self._lines and self._source.parent is not None:
            lines, self._lines = self._lines, []
            self._source.parent.info("%s", "\n".join(lines))

    def close(self) -> None:
        """Write what is kept and let the source print by itself again."""
        self.write()
        self._source.removeHandler(self)
        self._source.propagate = True
        super().close()


def silence_batches(root: logging.Logger) -> None:
    """Drop the line that TorchServe's worker logs for every batch it reads: it wakes a thread of the frontend as well."""
    if _is_no_batch not in root.filters:
        root.addFilter(_is_no_batch)


def _is_no_batch(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Backend received inference at")


def _register(cache: Any, spec: MetricSpec, kind: Any) -> Any:
    """Take the metric that metrics.yaml declared, or declare it (it is exported only if the yaml names it)."""
    if spec.name in cache.cache.get(kind, {}):
        return cache.get_metric(spec.name, kind)
    return cache.add_metric_to_cache(
        metric_name=spec.name,
        unit=spec.unit,
        dimension_names=[*spec.dimensions, "ModelName", "Level"],
        metric_type=kind,
    )
