from __future__ import annotations

import pytest

from ts_handlers.operate.autoscale.decide import Policy, State, decide
from ts_handlers.operate.autoscale.observe import Sample, Window
from ts_handlers.operate.torchserve.client import ModelStatus, Worker
from ts_handlers.operate.torchserve.metrics import Counters, parse_counters

METRICS = """\
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="m_1-b",model_version="default",hostname="vm",} 30.0
ts_inference_requests_total{model_name="m_1-b",model_version="2.0",hostname="vm",} 10.0
# TYPE ts_inference_latency_microseconds counter
ts_inference_latency_microseconds{model_name="m_1-b",model_version="default",hostname="vm",} 2500000.0
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{model_name="m_1-b",model_version="default",hostname="vm",} 500000.0
# TYPE Requests5XX counter
Requests5XX{Level="Host",Hostname="vm",} 3.0
# TYPE WorkerLoadTime gauge
WorkerLoadTime{WorkerName="W-9001-m_1-b_1.0",Level="Host",Hostname="vm",} 3000.0
WorkerLoadTime{WorkerName="W-10000-m_1-b_1.0",Level="Host",Hostname="vm",} 4000.0
WorkerLoadTime{WorkerName="W-9000-m_1-b_1.0",Level="Host",Hostname="vm",} 9000.0
WorkerLoadTime{WorkerName="odd",Level="Host",Hostname="vm",} 1.0
"""


def sample(time_s: float, *, ready: int = 1, queued: int = 0, counters: tuple[float, float, float] | None = None,
           failures: float = 0.0) -> Sample:  # fmt: skip
    workers = tuple(Worker(str(9000 + index), 1, is_ready=True, memory_bytes=0) for index in range(ready))
    status = ModelStatus(workers, queued, 100 - queued, 120.0)
    if counters is None:
        return Sample(time_s, status, None)
    requests, latency_s, queue_s = ({"m": value} for value in counters)
    return Sample(time_s, status, Counters(requests, latency_s, queue_s, failures, {"m": 4.0}))


def test_torchserve_s_metrics_are_read() -> None:
    counters = parse_counters(METRICS)
    assert counters.requests == {"m_1-b": 40.0}
    assert counters.latency_s == {"m_1-b": 2.5}
    assert counters.queue_s == {"m_1-b": 0.5}
    assert counters.failures == 3.0
    assert counters.load_time_s == {"m_1-b": 4.0}, "the newest worker's"
    with pytest.raises(ValueError, match="invalid metric name"):
        parse_counters("<html> no metrics </html>")


def test_in_flight_are_those_in_the_queue_and_by_little_s_law_those_with_a_worker() -> None:
    window = Window("m", 10.0, load_time_s=30.0)
    assert window.add(sample(0.0, queued=2, counters=(100, 50.0, 10.0))) is None, "a rate needs two looks"
    seen = window.add(sample(2.0, queued=4, counters=(142, 58.0, 12.0)))
    assert seen is not None
    assert seen.queued == 3.0
    assert seen.in_flight == 3.0 + (8.0 - 2.0) / 2.0
    assert seen.rate == (42 - 2) / 2.0, "two more wait than before"
    assert seen.latency_ms == pytest.approx(8.0 / 40 * 1000)
    assert seen.load_time_s == 4.0


def test_refused_requests_are_no_answers() -> None:
    window = Window("m", 10.0, 30.0)
    window.add(sample(0.0, queued=100, counters=(0, 0, 0)))
    seen = window.add(sample(1.0, queued=100, counters=(50, 0, 0), failures=20.0))
    assert seen is not None
    assert seen.rate == 30.0


def test_a_model_that_fails_takes_no_workers_from_a_healthy_one() -> None:
    """TorchServe counts 5xx for the whole server; a model whose queue has room has refused nothing."""
    window, state, workers, requests, failures = Window("m", 4.0, 1.0), State(), 1, 0.0, 0.0
    for second in range(100):
        is_busy = second < 10
        requests += 50.0 if is_busy else 70.0
        failures += 500.0
        counters = (requests, requests * 0.02, 0.0)
        queued = 40 if is_busy else 0
        seen = window.add(sample(float(second), ready=workers, queued=queued, counters=counters, failures=failures))
        if seen is None:
            continue
        decision, state = decide(Policy(), state, seen)
        if second > 20:
            assert workers == 2, decision.reason
            assert decision.change == 0, decision.reason
        workers = min(2, decision.workers)


def test_the_window_reaches_as_far_back_as_it_says() -> None:
    window = Window("m", 4.0, 30.0)
    for time_s in range(20):
        seen = window.add(sample(float(time_s), counters=(max(0, time_s - 15) * 10.0, 0, 0)))
    assert seen is not None
    assert seen.rate == 10.0


def test_another_number_of_workers_or_another_server_starts_the_window_anew() -> None:
    window = Window("m", 10.0, 30.0)
    window.add(sample(0.0, counters=(100, 0, 0)))
    assert window.add(sample(1.0, ready=2, counters=(200, 0, 0))) is None
    seen = window.add(sample(2.0, ready=2, counters=(210, 0, 0)))
    assert seen is not None
    assert seen.rate == 10.0
    assert window.add(sample(3.0, ready=2, counters=(5, 0, 0))) is None, "it was started again"


def test_without_metrics_the_queue_alone_is_seen() -> None:
    window = Window("m", 10.0, 30.0)
    window.add(sample(0.0, counters=(100, 0, 0)))
    seen = window.add(sample(1.0, queued=7))
    assert seen is not None
    assert (seen.in_flight, seen.rate, seen.latency_ms) == (7.0, 0.0, None)
    assert seen.load_time_s == 4.0, "what was measured before"
