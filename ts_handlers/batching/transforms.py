"""Examples -> model inputs, row by row, or many at a time where what is done to them lets other threads run (images)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ts_handlers.batching.padding import ModelInput
from ts_handlers.batching.parallel import ParallelCalls
from ts_handlers.batching.row import Row
from ts_handlers.errors import PayloadTooLargeError

Transform = Callable[[Any], Sequence[ModelInput]]


class Transforms:
    """Applies a handler's `transform`; a row that fails keeps its error.

    Args:
        limit: Most tokens, or pixels, of one row's inputs together.
        unit: What they count.
    """

    def __init__(self, limit: int, unit: str) -> None:
        self._limit, self._unit = limit, unit
        self._pool = ParallelCalls("transform")

    def run(self, rows: Sequence[Row], transform: Transform, num_parallel: int) -> None:
        """Fill `inputs` of each row, `num_parallel` examples at a time."""
        if num_parallel < 2:
            for row in rows:
                row.attempt(self._run_row, row, transform)
            return

        for row in rows:
            row.inputs = [[] for _ in row.examples]
        places = [(row, index) for row in rows for index in range(len(row.examples))]
        self._pool.for_each(lambda place: self.run_one(transform, *place), places, min(num_parallel, len(places)))

    def run_one(self, transform: Transform, row: Row, index: int) -> None:
        """Fill the inputs of one example, unless its row has failed; `inputs` has a list for each."""
        if row.is_open:
            row.attempt(self._run_example, transform, row, index)

    def _run_example(self, transform: Transform, row: Row, index: int) -> None:
        row.inputs[index] = list(row.call(index, transform, row.examples[index]))
        self._check(sum(item.num_positions for inputs in row.inputs for item in inputs))

    def _run_row(self, row: Row, transform: Transform) -> None:
        num_positions = 0
        for index, example in enumerate(row.examples):
            row.inputs.append(list(row.call(index, transform, example)))
            num_positions += sum(item.num_positions for item in row.inputs[-1])
            self._check(num_positions)

    def _check(self, num_positions: int) -> None:
        """Stop a row whose inputs are too much; checked as they are made, so that they never fill the memory."""
        if num_positions > self._limit:
            raise PayloadTooLargeError(
                f"the request has more than {self._limit} {self._unit}; send it in parts", code=f"too_many_{self._unit}"
            )
