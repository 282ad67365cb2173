from __future__ import annotations

import threading

import pytest

from ts_handlers.batching.parallel import ParallelCalls


def test_so_many_calls_are_made_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=20)
    calls = ParallelCalls()
    calls.for_each(lambda _: barrier.wait(), range(6), 3)
    seen: list[str] = []
    calls.for_each(lambda _: seen.append(threading.current_thread().name), range(3), 2)
    assert all(name.startswith("model-call") for name in seen)
    assert len(set(seen)) <= 2


def test_one_at_a_time_needs_no_thread() -> None:
    seen: list[threading.Thread] = []
    ParallelCalls().for_each(lambda _: seen.append(threading.current_thread()), range(3), 1)
    assert set(seen) == {threading.current_thread()}


def test_an_error_is_raised_when_all_are_done() -> None:
    done: list[int] = []

    def fail_on_zero(number: int) -> None:
        if number == 0:
            raise RuntimeError("the first")
        done.append(number)

    with pytest.raises(RuntimeError, match="the first"):
        ParallelCalls().for_each(fail_on_zero, range(4), 2)
    assert sorted(done) == [1, 2, 3]
