from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput, pad_batch
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import InferenceError
from ts_handlers.machine import CpuShare
from ts_handlers.shapes import Array

DEAR_CALLS = BucketingConfig(call_overhead_pixels=1000)


def image(height: int, width: int, level: float) -> ModelInput:
    arrays: dict[str, Array] = {
        "pixel_values": np.full((3, height, width), level, np.float32),
        "pixel_mask": np.ones((height, width), np.int64),
    }
    return ModelInput(arrays, size=(height, width))


def test_images_of_one_size_are_stacked() -> None:
    batch = pad_batch([image(2, 3, 1), image(2, 3, 2)], BatchPlan((1, 0), 6, padded_size=(2, 3)), {})
    assert batch.arrays["pixel_values"].shape == (2, 3, 2, 3)
    assert batch.arrays["pixel_values"][:, 0, 0, 0].tolist() == [2, 1]
    assert batch.batch_size == 2


def test_a_single_image_is_not_copied() -> None:
    item = image(2, 3, 1)
    batch = pad_batch([item], BatchPlan((0,), padded_size=(2, 3)), {})
    assert np.shares_memory(batch.arrays["pixel_values"], item.arrays["pixel_values"])


def test_smaller_images_are_padded_at_their_right_and_bottom() -> None:
    batch = pad_batch([image(2, 3, 1), image(4, 2, 2)], BatchPlan((0, 1), padded_size=(4, 3)), {})
    assert batch.arrays["pixel_values"].shape == (2, 3, 4, 3)
    assert batch.arrays["pixel_mask"].tolist() == [
        [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]],
        [[1, 1, 0]] * 4,
    ]
    assert batch.arrays["pixel_values"][0, 0].tolist() == batch.arrays["pixel_mask"][0].tolist()
    assert batch.arrays["pixel_values"].dtype == np.float32


@pytest.mark.parametrize("sizes", [[(2, 2)], [(2, 2), (3, 3)]])
def test_an_image_of_another_size_than_it_says(sizes: list[tuple[int, int]]) -> None:
    items = [image(*size, 1) for size in sizes]
    wrong = {**items[0].arrays, "pixel_mask": np.ones((5, 5), np.int64)}
    items[0] = ModelInput(wrong, size=items[0].size)
    items.append(image(*sizes[-1], 1))
    plan = BatchPlan(tuple(range(len(items))), padded_size=sizes[-1])
    with pytest.raises(InferenceError, match="pixel_mask"):
        pad_batch(items, plan, {})


class Recorder:
    """Says which sizes it was called with; fails on one."""

    max_parallel = 1
    runs_on_device = False

    def __init__(self, poison: float = -1) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._poison = poison

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        self.shapes.append(arrays["pixel_values"].shape)
        if (arrays["pixel_values"][:, 0, 0, 0] == self._poison).any():
            raise RuntimeError
        return {"sum": arrays["pixel_values"].sum(axis=(1, 2, 3))}

    def change_threads(self, share: CpuShare) -> None: ...

    def describe(self) -> str:
        return "recorder"


def test_images_of_many_sizes_come_back_in_order() -> None:
    items = [image(height, width, level) for level, (height, width) in enumerate([(2, 3), (4, 2), (2, 3), (5, 5)], 1)]
    expected = [item.arrays["pixel_values"].sum() for item in items]
    for pads_images, num_calls in ((False, 3), (True, 1)):
        calls, session = ModelCalls(DEAR_CALLS, {}, (), pads_images=pads_images), Recorder()
        outcomes = calls.run(session, items, calls.plan(session, items))
        assert [outcome["sum"] for outcome in outcomes if isinstance(outcome, dict)] == expected
        assert len(session.shapes) == num_calls


def test_an_image_that_fails_is_run_alone_at_its_own_size() -> None:
    items = [image(2, 3, 1), image(4, 2, 7), image(2, 2, 3)]
    calls, session = ModelCalls(DEAR_CALLS, {}, (), pads_images=True), Recorder(poison=7)
    outcomes = calls.run(session, items, calls.plan(session, items))
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert sorted(session.shapes[1:]) == [(1, 3, 2, 2), (1, 3, 2, 3), (1, 3, 4, 2)]
