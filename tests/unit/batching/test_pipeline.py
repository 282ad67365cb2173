from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.batching.pipeline import Pipeline, can_interleave
from ts_handlers.batching.row import Row
from ts_handlers.batching.transforms import Transforms
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import RequestError
from ts_handlers.machine import CpuShare
from ts_handlers.requests.payload import Request
from ts_handlers.shapes import Array

WAIT_S = 20


class DoublingSession:
    """Returns twice what it is fed; a call that has a 13 in it fails."""

    def __init__(self, max_parallel: int = 2, *, runs_on_device: bool = False) -> None:
        self.max_parallel, self.runs_on_device = max_parallel, runs_on_device
        self.called = threading.Event()
        self.sizes: list[int] = []

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        assert num_parallel == self.max_parallel
        self.called.set()
        if 13 in arrays["x"]:
            raise RuntimeError("unlucky")
        self.sizes.append(len(arrays["x"]))
        return {"y": 2 * arrays["x"][:, 0, 0]}

    def change_threads(self, share: CpuShare) -> None:
        """Do nothing."""

    def describe(self) -> str:
        return "doubles"


def image(example: Any) -> list[ModelInput]:
    if example < 0:
        raise RequestError("send something positive")
    return [ModelInput({"x": np.full((1, 1), example)}, size=(1, 1))]


def rows(*examples: list[int]) -> list[Row]:
    return [Row(Request(tuple(items), is_many=True), list(items)) for items in examples]


def pipeline() -> Pipeline:
    return Pipeline(Transforms(100, "pixels"), ModelCalls(BucketingConfig(), {}, ()))


def test_each_row_has_its_own_outputs_or_error() -> None:
    made = rows([1, 2, 3], [4, -1], [13, 5], [6])
    session = DoublingSession()
    done = pipeline().run(made, image, session, 2)
    assert [[output["y"] for output in outputs] for row in (made[0], made[3]) for outputs in row.outputs] == [
        [2],
        [4],
        [6],
        [12],
    ]
    assert made[1].error is not None
    assert made[1].error.message == "instance 1: send something positive"
    assert made[2].error is not None
    assert made[2].error.status == 500
    assert max(session.sizes) == 2  # eight images, two threads: two calls for each
    assert (done.padding, done.run_s > 0, done.transform_s >= 0) == (0, True, True)


def test_the_model_computes_before_the_last_image_is_decoded() -> None:
    session = DoublingSession()

    def last_waits(example: Any) -> list[ModelInput]:
        assert example != 8 or session.called.wait(WAIT_S)
        return image(example)

    made = rows(list(range(1, 9)))
    pipeline().run(made, last_waits, session, 2)
    assert made[0].error is None


def test_where_the_cpu_is_free_the_one_thread_decodes_during_a_call() -> None:
    """A fake: there is no GPU here."""
    together = threading.Barrier(2, timeout=WAIT_S)
    session = DoublingSession(1, runs_on_device=True)
    run = session.run

    def first_call_waits(arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        if not session.called.is_set():
            session.called.set()
            together.wait()
        return run(arrays, num_parallel=num_parallel)

    def third_waits(example: Any) -> list[ModelInput]:
        if example == 3:
            together.wait()
        return image(example)

    session.run = first_call_waits  # type: ignore[method-assign]
    made = rows([1, 2, 3, 4])
    pipeline().run(made, third_waits, session, 1)
    assert made[0].error is None
    assert session.sizes == [2, 2]


def test_what_fails_in_a_thread_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no room for a plan")

    monkeypatch.setattr(ModelCalls, "plan_within", fail)
    with pytest.raises(MemoryError, match="no room"):
        pipeline().run(rows([1, 2, 3, 4]), image, DoublingSession(), 2)


@pytest.mark.parametrize(
    ("session", "num_examples", "num_parallel", "expected"),
    [
        (DoublingSession(2), 2, 2, True),
        (DoublingSession(2), 1, 2, False),
        (DoublingSession(1), 8, 2, False),
        (DoublingSession(1), 8, 1, False),
        (DoublingSession(1, runs_on_device=True), 2, 1, True),
        (DoublingSession(1, runs_on_device=True), 1, 4, False),
    ],
)
def test_when_there_is_something_to_gain(
    session: DoublingSession, num_examples: int, num_parallel: int, expected: bool
) -> None:
    assert can_interleave(session, rows([1] * num_examples), num_parallel) is expected
