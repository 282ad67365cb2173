"""What the autoscaler says: a log line when something changes, and Prometheus metrics all the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from ts_handlers.errors import OperatorError
from ts_handlers.operate.autoscale.decide import Decision, Observation

logger = logging.getLogger("ts_handlers.autoscale")

_PREFIX = "ts_handlers_autoscale"
_TOLD_CAUSES = frozenset(("maximum", "budget"))
"""Causes of staying as it is that an operator should know of: more workers are wanted and not allowed."""


class Report:
    """Logs every change once, and keeps the metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._told: dict[str, str] = {}
        self._workers = self._gauge("workers", "Workers of the model", "model", "state")
        self._demand = self._gauge("demand_workers", "Workers that the traffic needs", "model")
        self._in_flight = self._gauge("in_flight", "Mean number of requests in the server", "model")
        self._queued = self._gauge("queued", "Mean number of requests in the queue", "model")
        self._rate = self._gauge("requests_per_second", "Requests answered per second", "model")
        self._load_time = self._gauge("load_time_seconds", "How long a worker takes to load", "model")
        self._decisions = self._counter("decisions", "Decisions by what decided", "model", "cause")
        self._changes = self._counter("changes", "Changes of the number of workers", "model", "direction")
        self._cpus = self._gauge("cpus", "CPU limit of the serving container", "state")
        self._resizes = self._counter("resize_failures", "Resizes that were not carried out", "reason")
        self._up = self._gauge("up", "Whether the last request to it was answered", "target")

    def tell(self, subject: str, text: str, *, is_problem: bool = False) -> bool:
        """Log what holds of a subject, unless that was said last; return whether it was new."""
        if self._told.get(subject) == text:
            return False
        self._told[subject] = text
        logger.log(logging.WARNING if is_problem else logging.INFO, "%s", text)
        return True

    def forget(self, subject: str) -> None:
        """Say it again when it is told again."""
        self._told.pop(subject, None)

    def up(self, target: str, problem: str | None) -> None:
        """Say that a server answers, or what is wrong with it."""
        self._up.labels(target).set(problem is None)
        if problem is not None:
            self.tell(f"up {target}", problem, is_problem=True)
        elif self._told.pop(f"up {target}", None) is not None:
            logger.info("%s answers again", target)

    def observed(self, model: str, seen: Observation, decision: Decision) -> None:
        """Keep what was observed and decided."""
        self._workers.labels(model, "ready").set(seen.ready)
        self._workers.labels(model, "all").set(seen.workers)
        self._workers.labels(model, "wanted").set(decision.workers)
        self._demand.labels(model).set(decision.demand)
        self._in_flight.labels(model).set(seen.in_flight)
        self._queued.labels(model).set(seen.queued)
        self._rate.labels(model).set(seen.rate)
        self._load_time.labels(model).set(seen.load_time_s)
        self._decisions.labels(model, decision.cause).inc()
        logger.debug("%s: %d workers (%s): %s", model, decision.workers, decision.cause, decision.reason)
        subject = f"bound {model}"
        if decision.change == 0 and decision.cause in _TOLD_CAUSES:
            if self._told.get(subject) != decision.cause:
                self._told[subject] = decision.cause
                logger.warning("%s: stays at %d workers (%s): %s", model, seen.workers, decision.cause, decision.reason)
        elif decision.change == 0 and decision.cause != "cooldown":
            self._told.pop(subject, None)

    def changed(self, model: str, before: int, after: int, decision: Decision) -> None:
        """Say that workers were added or removed."""
        self._changes.labels(model, "up" if after > before else "down").inc()
        logger.info("%s: %d -> %d workers (%s): %s", model, before, after, decision.cause, decision.reason)

    def planned(self, model: str, before: int, decision: Decision) -> None:
        """Say once what would be done."""
        if self._told.get(f"plan {model}") != (plan := f"{before} {decision.workers} {decision.cause}"):
            self._told[f"plan {model}"] = plan
            logger.info(
                "%s: would go from %d to %d workers (%s): %s",
                *(model, before, decision.workers, decision.cause, decision.reason),
            )

    def cpus(self, wanted: float, in_effect: float) -> None:
        """Keep the pod's CPUs."""
        self._cpus.labels("wanted").set(wanted)
        self._cpus.labels("in_effect").set(in_effect)

    def count_resize(self, reason: str) -> None:
        """Count a resize that was not carried out."""
        self._resizes.labels(reason).inc()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)


@contextmanager
def serve_metrics(report: Report, host: str, port: int) -> Iterator[None]:
    """Serve the metrics while the block runs.

    Raises:
        OperatorError: The address cannot be listened on.
    """
    try:
        server, thread = start_http_server(port, host, registry=report.registry)
    except OSError as error:
        reason = error.strerror or error
        raise OperatorError(f"cannot listen on {host}:{port}: {reason}; choose another metrics.port") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
