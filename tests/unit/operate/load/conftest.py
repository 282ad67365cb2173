from __future__ import annotations

import pytest

from ts_handlers.operate.load.result import LoadResult, TimelinePoint


@pytest.fixture
def result() -> LoadResult:
    """A block with a second of errors in it, and one without any request."""
    return LoadResult(
        concurrency=16,
        rate=None,
        duration_s=3.0,
        num_ok=30,
        num_answered=50,
        errors={"503": 4, "TimeoutError": 1},
        first_error='503 {"code": 503}',
        requests_per_second=10.0,
        mean_ms=11.0,
        p50_ms=10.0,
        p90_ms=20.0,
        p99_ms=30.0,
        max_ms=40.0,
        client_cpu_s=0.3,
        num_late=0,
        timeline=(
            TimelinePoint(0.0, 30, 0, 10.0, 30.0),
            TimelinePoint(1.0, 0, 5, None, None),
            TimelinePoint(2.0, 0, 0, None, None),
        ),
    )
