"""Measure what the simulated server is made of: ResNet-50 in our archive, in process and through TorchServe."""

from __future__ import annotations

import statistics
import time
import urllib.request
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.limit import block, running
from bench.models.subjects import make_subject
from bench.ours import Ours
from bench.runner import Load, Run
from bench.side import TIMEOUT_SECONDS, Served
from bench.simulation.cluster import Service

WORKERS = 2
ROUNDS = 3
BATCH_SIZES = (1, 2, 4, 8)


def measure(run: Run, seconds: float) -> dict[str, Any]:
    """Return the model of a server, ready for json.dumps, with the machine and what it was made from.

    A batch of n costs call + n * request seconds: the line through the times of batches of 1 to 8 in one process of one
    thread, times what serving costs besides and what two workers cost one another. That is the rate that two such processes
    would have in batches of 8, over the rate that 16 clients see through TorchServe with two workers, the load generator on
    the same CPUs included.
    """
    images, archive = make_subject("resnet", run.work_dir, "fp32")
    archive.make()
    with running(archive.mar, images.payloads, 1) as process:
        blocks = {size: block(process, size, seconds / len(BATCH_SIZES)) for size in BATCH_SIZES}
    batch_s = {size: size / found["requests_per_second"] for size, found in blocks.items()}
    request, call = np.polyfit(list(batch_s), list(batch_s.values()), 1)
    starts, loads, rates = [], [], []
    load = Load(images.payloads, run.work_dir)
    for _ in range(ROUNDS):
        with Ours("two", archive, WORKERS).serve() as served:
            starts.append(served.start_s)
            load.send(served.url, load.warmup_s)
            rates.append(load.send(served.url, seconds / ROUNDS)["requests_per_second"])
        with Ours("one", archive, 1).serve() as served:
            loads.append(_load_seconds(served, archive.model))
    largest = BATCH_SIZES[-1]
    share_of_limit = statistics.median(rates) * (max(call, 0.0) + largest * request) / largest / WORKERS
    service = Service(
        call_seconds=round(max(float(call), 0.0) / share_of_limit, 5),
        request_seconds=round(float(request) / share_of_limit, 5),
        noise=round(statistics.median(found["more"]["spread"] for found in blocks.values()), 3),
        worker_load_seconds=round(statistics.median(loads), 2),
        server_start_seconds=round(statistics.median(starts), 2),
    )
    return {
        "model": "ResNet-50, fp32, ONNX Runtime, JPEG in",
        "machine": run.machine,
        "batch_ms": {size: round(1e3 * value, 2) for size, value in batch_s.items()},
        "served_requests_per_second": [round(rate, 1) for rate in rates],
        "served_share_of_limit": round(share_of_limit, 3),
        "worker_load_seconds": [round(value, 2) for value in loads],
        "server_start_seconds": [round(value, 2) for value in starts],
        "service": asdict(service),
    }


def _load_seconds(served: Served, model: str) -> float:
    """Ask for a second worker, and return how long TorchServe takes to have it."""
    url = f"{served.management_url}/models/{model}?min_worker=2&max_worker=2&synchronous=true"
    started = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        response.read()
    return time.monotonic() - started
