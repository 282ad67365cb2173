from __future__ import annotations

import pytest

from ts_handlers.errors import ConfigError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.machine.share import threads_from_environ, workers_from_environ


@pytest.mark.parametrize(
    ("cpus", "workers", "threads", "exclusive"),
    [(8, 2, 4, True), (2, 2, 1, True), (2, 4, 1, False), (1.5, 1, 1, True), (7, 2, 3, True), (0.5, 1, 1, False)],
)
def test_share(cpus: float, workers: int, threads: int, exclusive: bool) -> None:
    share = cpu_share(CpuBudget(tuple(range(64)), cpus), workers)
    assert (share.threads, share.cpus, share.is_exclusive) == (threads, cpus / workers, exclusive)


def test_threads_can_be_set() -> None:
    assert cpu_share(CpuBudget((0, 1)), 2, threads=5).threads == 5


@pytest.mark.parametrize(
    ("cpus", "quota", "workers", "threads"), [((0, 1), None, 4, 2), ((2, 3, 4), 4.0, 2, 2), ((5,), 8.0, 2, 1)]
)
def test_who_is_bound_by_others_divides_the_quota_alone(
    cpus: tuple[int, ...], quota: float | None, workers: int, threads: int
) -> None:
    assert cpu_share(CpuBudget(cpus, quota), workers, is_bound=True).threads == threads


def test_the_environment_is_read() -> None:
    assert workers_from_environ({"TS_HANDLERS_WORKERS": "4"}) == 4
    assert threads_from_environ({"TS_HANDLERS_THREADS": "3"}) == 3
    assert workers_from_environ({}) is None
    assert threads_from_environ({}) is None


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5", "²"])
def test_a_count_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="TS_HANDLERS_WORKERS is"):
        workers_from_environ({"TS_HANDLERS_WORKERS": value})
    with pytest.raises(ConfigError, match="TS_HANDLERS_THREADS is"):
        threads_from_environ({"TS_HANDLERS_THREADS": value})
