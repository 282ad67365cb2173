"""What a call costs beside its tokens; the engine's time is faked, for a real one has no exact answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ts_handlers.call_cost import measure_overhead, measured_shape
from ts_handlers.config import BucketingConfig


class Engine:
    """Calls that take `call_s` and `token_s` for each token, and more the first time; no real time passes."""

    def __init__(self, call_s: float, token_s: float, length: int) -> None:
        self._call_s, self._token_s, self._length = call_s, token_s, length
        self.now_s, self._seen = 0.0, set[int]()
        self.delays_s = iter((0.0, 0.0, 0.3, 0.5, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0))

    def run(self, num_rows: int) -> None:
        first_s = 0.0 if num_rows in self._seen else 5.0
        self._seen.add(num_rows)
        self.now_s += self._call_s + num_rows * self._length * self._token_s + first_s + next(self.delays_s)

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("call_s", "token_s", "overhead_tokens"),
    [(0.012, 0.002, 6.0), (0.0, 0.002, 1.0), (9.0, 0.002, 32.0), (0.012, 0.0, 32.0)],
)
def test_the_overhead_is_that_of_the_least_disturbed_calls(
    call_s: float, token_s: float, overhead_tokens: float
) -> None:
    engine = Engine(call_s, token_s, length=24)
    assert measure_overhead(engine.run, 8, 24, engine.clock) == pytest.approx(overhead_tokens)


def test_a_slow_model_is_called_twice_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ts_handlers.call_cost._MOST_SECONDS", -1.0)
    seen: list[int] = []
    run: Callable[[int], None] = seen.append
    assert measure_overhead(run, 8, 24, lambda: float(sum(seen))) == pytest.approx(1.0)
    assert seen == [1, 8, 1, 8]


@pytest.mark.parametrize(
    ("bucketing", "max_length", "shape"),
    [
        (BucketingConfig(), None, (8, 24)),
        (BucketingConfig(max_batch_size=4), 16, (4, 16)),
        (BucketingConfig(boundaries=(16, 32)), 64, (8, 32)),
        (BucketingConfig(boundaries=(16,)), 64, (8, 16)),
        (BucketingConfig(max_batch_size=1), None, None),
        (BucketingConfig(call_overhead_tokens=0.0), None, None),
        (BucketingConfig(boundaries=(16, 32), group_sizes=(1, 8)), None, None),
    ],
)
def test_what_is_measured(bucketing: BucketingConfig, max_length: int | None, shape: tuple[int, int] | None) -> None:
    assert measured_shape(bucketing, max_length) == shape
