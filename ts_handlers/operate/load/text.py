"""A block of load in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ts_handlers.operate.load.result import LoadResult

_BUSY_CLIENT = 0.9


def describe_loop(result: LoadResult) -> str:
    """Return how requests were sent."""
    if result.rate is None:
        return f"closed loop, {result.concurrency} in flight"
    return f"open loop, {result.rate:g} requests/s, at most {result.concurrency} in flight"


def describe_result(result: LoadResult) -> Iterator[str]:
    """Yield lines: rate and errors, latencies, and what casts doubt on them."""
    yield (
        f"{result.requests_per_second:.1f} requests/s, {result.num_ok} answered with 2xx, "
        f"errors: {describe_errors(result.errors)}"
    )
    if result.first_error:
        yield f"first error: {result.first_error}"
    latencies_ms = {
        "mean": result.mean_ms,
        "p50": result.p50_ms,
        "p90": result.p90_ms,
        "p99": result.p99_ms,
        "max": result.max_ms,
    }
    shown = [f"{name} {value:.1f}" for name, value in latencies_ms.items() if value is not None]
    if shown:
        yield f"latency in ms: {', '.join(shown)}"
    if result.num_late:
        yield f"{result.num_late} requests were sent late (no room in flight, or a busy client); their wait is counted"
    if result.client_cpu_s > _BUSY_CLIENT * result.duration_s > 0:
        used = result.client_cpu_s / result.duration_s
        yield f"note: this client used {used:.0%} of a CPU: it may be the limit, not the server"


def describe_errors(errors: Mapping[str, int]) -> str:
    """Return errors as `12 x 503, 1 x TimeoutError`; none as 0."""
    return ", ".join(f"{count} x {name}" for name, count in errors.items()) or "0"
