"""What a model call costs beside its tokens, measured when a worker starts: engines and CPUs differ tenfold.

A call of n sequences of L tokens is taken to cost a + b n L; a / b is the overhead in tokens, which is weighed against
padding where sequences are grouped. Texts of 25 tokens on one thread of MiniLM, with 2, 8 and 16 tokens: dynamic INT8 2.31,
2.56 and 2.66 ms each, fp32 in ONNX Runtime 6.8, 6.0 and 5.9, in torch 11.8, 8.7 and 8.6.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ts_handlers.bucketing import pad_length
from ts_handlers.config import BucketingConfig

DEFAULT_TOKENS = 8.0
"""Where it is neither configured nor measured."""

_LENGTH, _ROWS = 24, 8
_MOST_REPEATS, _MOST_SECONDS = 5, 0.5
_LEAST_TOKENS, _MOST_TOKENS = 1.0, 32.0


def measured_shape(bucketing: BucketingConfig, max_length: int | None) -> tuple[int, int] | None:
    """Return the (rows, length) to measure with; None where there is nothing to measure.

    That is where the overhead is configured, a call has one sequence, or only some numbers of rows have a graph.
    """
    rows = min(_ROWS, bucketing.max_batch_size)
    if bucketing.call_overhead_tokens is not None or bucketing.group_sizes or rows < 2:
        return None
    length = min(max_length or _LENGTH, _LENGTH)
    if bucketing.boundaries:
        length = min(pad_length(length, bucketing.boundaries), bucketing.boundaries[-1])
    return rows, length


def measure_overhead(
    run: Callable[[int], object], rows: int, length: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Return the overhead of a call in tokens, 1 to 32.

    Args:
        run: Makes a call of so many sequences of `length` tokens.
        rows: Sequences of the larger of the two calls that are compared.
        length: Tokens of each.
        clock: Seconds. CPU time, because other workers start at the same time; where a GPU computes, time that passes.
    """
    least = dict.fromkeys((1, rows), float("inf"))
    started = time.perf_counter()
    for repeat in range(_MOST_REPEATS + 1):
        for size in least:
            before = clock()
            run(size)
            if repeat:  # the first of a shape prepares memory for it
                least[size] = min(least[size], clock() - before)
        if repeat and time.perf_counter() - started > _MOST_SECONDS:
            break
    token_s = (least[rows] - least[1]) / ((rows - 1) * length)
    if token_s <= 0:
        return _MOST_TOKENS
    return min(max(least[1] / token_s - length, _LEAST_TOKENS), _MOST_TOKENS)
