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

_GAUGES = {
    "workers": ("Workers of the model", "model", "state"),
    "demand_workers": ("Workers that the traffic needs", "model"),
    "in_flight": ("Mean number of requests in the server", "model"),
    "queued": ("Mean number of requests in the queue", "model"),
    "requests_per_second": ("Requests answered per second", "model"),
    "load_time_seconds": ("How long a worker takes to load", "model"),
    "cpus": ("CPU limit of the serving container", "state"),
    "up": ("Whether the last request to it was answered", "target"),
}
_COUNTERS = {
    "decisions": ("Decisions by what decided", "model", "cause"),
    "changes": ("Changes of the number of workers", "model", "direction"),
    "resize_failures": ("Resizes that were not carried out", "reason"),
}
_TOLD_CAUSES = frozenset(("maximum", "budget"))
"""Causes of staying as it is that an operator should know of: more workers are wanted and not allowed."""


class Report:
    """Logs every change once, and keeps the metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._told: dict[str, str] = {}
        self._gauges = {
            name: Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)
            for name, (text, *labels) in _GAUGES.items()
        }
        self._counters = {
            name: Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)
            for name, (text, *labels) in _COUNTERS.items()
        }

    def set(self, name: str, value: float, *labels: str) -> None:
        """Keep the value of a gauge."""
        self._gauges[name].labels(*labels).set(value)

    def count(self, name: str, *labels: str) -> None:
        """Count one more."""
        self._counters[name].labels(*labels).inc()

    def tell(self, subject: str, text: str, *, is_problem: bool = False, key: str | None = None) -> bool:
        """Log what holds of a subject, unless it was said last; return whether it was new.

        Args:
            subject: What it is about.
            text: What to log.
            is_problem: Whether it is a warning.
            key: What says that a text is another; None for the text.
        """
        if self._told.get(subject) == (key or text):
            return False
        self._told[subject] = key or text
        logger.log(logging.WARNING if is_problem else logging.INFO, "%s", text)
        return True

    def forget(self, subject: str) -> bool:
        """Say it again when it is told again; return whether it had been told."""
        return self._told.pop(subject, None) is not None

    def up(self, target: str, problem: str | None) -> None:
        """Say that a server answers, or what is wrong with it."""
        self.set("up", problem is None, target)
        if problem is not None:
            self.tell(f"up {target}", problem, is_problem=True)
        elif self.forget(f"up {target}"):
            logger.info("%s answers again", target)

    def observed(self, model: str, seen: Observation, decision: Decision) -> None:
        """Keep what was observed and decided."""
        self.set("workers", seen.ready, model, "ready")
        self.set("workers", seen.workers, model, "all")
        self.set("workers", decision.workers, model, "wanted")
        self.set("demand_workers", decision.demand, model)
        self.set("in_flight", seen.in_flight, model)
        self.set("queued", seen.queued, model)
        self.set("requests_per_second", seen.rate, model)
        self.set("load_time_seconds", seen.load_time_s, model)
        self.count("decisions", model, decision.cause)
        why = f"({decision.cause}): {decision.reason}"
        logger.debug("%s: %d workers %s", model, decision.workers, why)
        if decision.change == 0 and decision.cause in _TOLD_CAUSES:
            text = f"{model}: stays at {seen.workers} workers {why}"
            self.tell(f"bound {model}", text, is_problem=True, key=decision.cause)
        elif decision.change == 0 and decision.cause != "cooldown":
            self.forget(f"bound {model}")

    def changed(self, model: str, before: int, after: int, decision: Decision) -> None:
        """Say that workers were added or removed."""
        self.count("changes", model, "up" if after > before else "down")
        logger.info("%s: %d -> %d workers (%s): %s", model, before, after, decision.cause, decision.reason)

    @contextmanager
    def serve(self, host: str, port: int) -> Iterator[None]:
        """Serve the metrics while the block runs.

        Raises:
            OperatorError: The address cannot be listened on.
        """
        try:
            server, thread = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            reason = error.strerror or error
            raise OperatorError(f"cannot listen on {host}:{port}: {reason}; choose another metrics.port") from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
