"""What graphs of an OpenVINO model take of memory: measured in a fresh process, where nothing is left to be used again.

    python -m ts_handlers.build.openvino.memory < MEASUREMENT.json

prints the MiB of a graph.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ts_handlers.batch import Array
from ts_handlers.config import RuntimeConfig
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import ModelFiles, Shape
from ts_handlers.runtime.openvino import OpenVinoSession, private_bytes
from ts_handlers.settings import from_mapping

TIMEOUT_S = 600


def mib_per_graph(path: Path, runtime: Mapping[str, Any], calls: Sequence[Mapping[str, Array]]) -> float:
    """Return the private memory of a graph in MiB, mean over some shapes.

    Args:
        path: The model.
        runtime: `handler.runtime` for it.
        calls: What a call of each shape is fed.

    Raises:
        OperatorError: The model does not load or run in a fresh process.
    """
    fed = [{name: array.tolist() for name, array in call.items()} for call in calls]
    measurement = {"path": str(path), "runtime": dict(runtime), "calls": fed}
    result = subprocess.run(
        [sys.executable, "-m", "ts_handlers.build.openvino.memory"],
        cwd=path.parent,  # -m puts the working folder on the import path
        input=json.dumps(measurement),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    lines = result.stdout.split()
    if result.returncode != 0 or not lines:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise OperatorError(
            f"OpenVINO's memory could not be measured in a fresh process: {reason}; set bucketing.boundaries and "
            "bucketing.group_sizes to do without"
        )
    return float(lines[-1])


def main() -> int:
    """Measure in this process; what to measure comes on standard input."""
    asked = json.loads(sys.stdin.read())
    path = Path(asked["path"])
    config = from_mapping(RuntimeConfig, {**asked["runtime"], "max_memory_mb": None}, "handler.runtime")
    calls = [{name: np.asarray(rows, dtype=np.int64) for name, rows in call.items()} for call in asked["calls"]]
    shapes: list[Shape] = [(len(ids := next(iter(call.values()))), ids.shape[1]) for call in calls]
    share, files = cpu_share(CpuBudget((0,)), 1, threads=1), ModelFiles(path.parent, path.name)
    OpenVinoSession(config, files, share).run(calls[0])
    before = private_bytes()
    session = OpenVinoSession(config, files, share, shapes)
    for call in calls:
        session.run(call)
    sys.stdout.write(f"{max(1.0, (private_bytes() - before) / len(shapes) / 2**20)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
