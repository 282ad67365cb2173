from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from ts_handlers.batching.padding import ModelInput
from ts_handlers.batching.row import Row
from ts_handlers.batching.transforms import Transforms
from ts_handlers.errors import RequestError
from ts_handlers.requests.payload import Request


def transform(example: Any) -> list[ModelInput]:
    if example < 0:
        raise RequestError("send something positive")
    return [ModelInput({"x": np.array([example])}, example)]


def rows(*examples: list[int]) -> list[Row]:
    return [Row(Request(tuple(items), is_many=True), list(items)) for items in examples]


@pytest.mark.parametrize("num_parallel", [1, 2, 5])
def test_inputs_are_in_order(num_parallel: int) -> None:
    made = rows([1, 2, 3], [4], [5, 6])
    Transforms(100, "tokens").run(made, transform, num_parallel)
    assert [[item.length for inputs in row.inputs for item in inputs] for row in made] == [[1, 2, 3], [4], [5, 6]]


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_a_row_that_fails_keeps_its_error(num_parallel: int) -> None:
    made = rows([1, -2, 3], [4])
    Transforms(100, "tokens").run(made, transform, num_parallel)
    assert made[0].error is not None
    assert made[0].error.message == "instance 1: send something positive"
    assert made[1].is_open


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_a_row_that_is_too_much_is_stopped(num_parallel: int) -> None:
    made = rows([6, 6, 6], [9])
    Transforms(10, "pixels").run(made, transform, num_parallel)
    assert made[0].error is not None
    assert (made[0].error.status, made[0].error.code) == (413, "too_many_pixels")
    assert made[1].is_open


def test_several_at_a_time() -> None:
    together = threading.Barrier(2, timeout=10)

    def wait(example: Any) -> list[ModelInput]:
        together.wait()
        return transform(example)

    made = rows([1, 2])
    Transforms(100, "pixels").run(made, wait, 2)
    assert made[0].is_open


def test_a_row_that_failed_is_not_gone_on_with() -> None:
    seen: list[int] = []

    def note(example: Any) -> list[ModelInput]:
        seen.append(example)
        return transform(example)

    Transforms(1000, "pixels").run(rows([-1] * 200), note, 2)
    assert len(seen) <= 4  # those that were on their way when the first one failed


def test_no_rows() -> None:
    Transforms(1, "pixels").run([], transform, 4)
