"""What a batch costs a worker of one thread, in process: one of the two measurements the simulated server is made of.

    python -m bench.simulation.timing MODEL_DIR PAYLOADS SECONDS

prints a line of JSON: for each batch size the times of its calls, in seconds, taken in turns.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.inprocess import load_archive
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.testing import predict

BATCH_SIZES = (1, 2, 4, 8)

PREFIX = "times "


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    model_dir, payloads, seconds = Path(arguments[0]), Path(arguments[1]), float(arguments[2])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    handler = load_archive(model_dir)
    bodies = itertools.cycle([payload.body for payload in read_payloads(payloads)])
    times: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for size in BATCH_SIZES:
        predict(handler, *itertools.islice(bodies, size))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for size in BATCH_SIZES:
            batch = list(itertools.islice(bodies, size))
            started = time.perf_counter()
            predict(handler, *batch)
            times[size].append(time.perf_counter() - started)
    print(PREFIX + json.dumps(times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
