"""Measure what the simulated server is made of: ResNet-50 in our handler, in process and through TorchServe."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.load import Load
from bench.models import Model, make
from bench.process import BenchError, run
from bench.report import machine
from bench.server import clean_env
from bench.simulation.service import Service
from bench.simulation.timing import PREFIX
from ts_handlers.cpu import THREADS_ENV, WORKERS_ENV

WORKERS = 2
CLIENTS = 16
ROUNDS = 3

_LOAD_TIMEOUT_SECONDS = 120.0


def measure(work_dir: Path, seconds: float) -> dict[str, Any]:
    """Return the model of a server, ready for json.dumps, with the machine and what it was made from.

    A batch of n costs call + n * request seconds: the line through the medians of batches of 1 to 8 in one process of one
    thread, times what serving costs besides and what two workers cost one another. That is the rate that two such processes
    would have in batches of 8, over the rate that 16 clients see through TorchServe with two workers, the load generator on
    the same CPUs included.
    """
    model = make("resnet", work_dir, None)
    model.ours.prepare()
    times = _in_process(model.ours.mar, model.payloads, work_dir, seconds)
    medians = {size: statistics.median(found) for size, found in times.items()}
    request, call = np.polyfit(list(medians), list(medians.values()), 1)
    starts, loads, rates = _served(model, Load(model.payloads, CLIENTS, 5.0, work_dir), seconds / ROUNDS)
    batch = max(medians)
    share_of_limit = statistics.median(rates) * (max(call, 0.0) + batch * request) / batch / WORKERS
    spread = [float(np.std(np.log(found))) for found in times.values()]
    service = Service(
        call_seconds=round(max(float(call), 0.0) / share_of_limit, 5),
        request_seconds=round(float(request) / share_of_limit, 5),
        noise=round(statistics.median(spread), 3),
        worker_load_seconds=round(statistics.median(loads), 2),
        server_start_seconds=round(statistics.median(starts), 2),
    )
    return {
        "model": "ResNet-50, fp32, ONNX Runtime, JPEG in",
        "machine": machine(),
        "batch_ms": {size: round(1e3 * value, 2) for size, value in medians.items()},
        "served_requests_per_second": [round(rate, 1) for rate in rates],
        "served_share_of_limit": round(share_of_limit, 3),
        "worker_load_seconds": [round(value, 2) for value in loads],
        "server_start_seconds": [round(value, 2) for value in starts],
        "service": asdict(service),
    }


def _served(model: Model, load: Load, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """Return what servers took to start, what they took to load one worker more, and the rates they had."""
    starts, loads, rates = [], [], []
    for _ in range(ROUNDS):
        with model.ours.serve(WORKERS) as served:
            starts.append(served.start_seconds or 0.0)
            rates.append(load.run(served.url, seconds).requests_per_second)
        with model.ours.serve(1) as served:
            loads.append(_load_seconds(f"{served.management_url}/models/{model.ours.model}"))
    return starts, loads, rates


def _in_process(mar: Path, payloads: Path, work_dir: Path, seconds: float) -> Mapping[int, Sequence[float]]:
    unpacked = work_dir / "simulation-model"
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(unpacked)
    environ = clean_env(PYTHONPATH=str(Path(__file__).resolve().parents[2])) | {WORKERS_ENV: "2", THREADS_ENV: "1"}
    printed = run(
        [sys.executable, "-m", "bench.simulation.timing", unpacked, payloads, str(seconds)],
        log=work_dir / "timing.log",
        env=environ,
        cwd=work_dir,
        timeout_seconds=seconds + 120.0,
    )
    for line in printed.splitlines():
        if line.startswith(PREFIX):
            return {int(size): found for size, found in json.loads(line.removeprefix(PREFIX)).items()}
    raise BenchError(f"the measurement in process printed no times; see {work_dir / 'timing.log'}")


def _load_seconds(model_url: str) -> float:
    """Ask for a second worker, and return how long TorchServe takes to have it."""
    request = urllib.request.Request(f"{model_url}?min_worker=2&max_worker=2&synchronous=true", method="PUT")  # noqa: S310  # loopback
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=_LOAD_TIMEOUT_SECONDS) as response:  # noqa: S310
        response.read()
    return time.monotonic() - started
