"""Builds one architecture for one task with each backend, in this process, and judges the archives.

    python -m sweeping.one TASK NAME BACKEND...

prints a JSON line for each backend: {"verdict": "right" | "refused" | "WRONG" | "not made", "difference", "reason"}.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import tempfile
import traceback
import zipfile
from pathlib import Path
from typing import Any

LIMITS = {"image-classification": 0.02, "object-detection": 0.02, "image-segmentation": 0.02}
"""Largest difference that is right; 1e-3 elsewhere. Processors may differ by three of 256 levels of a pixel."""

MEMORY_BYTES = 16 * 2**30
"""Address space of a build."""


def main(arguments: list[str]) -> int:
    """Do it."""
    task, name, *backends = arguments
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))  # a model that is not small ends alone
    from sweeping.architectures import architectures
    from sweeping.checkpoints import write_checkpoint

    [architecture] = [item for item in architectures((task,)) if item.name == name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                write_checkpoint(architecture, folder)
        except Exception as error:  # noqa: BLE001  # an architecture may want what a small model does not have
            for backend in backends:
                _say(
                    backend,
                    "not made",
                    reason=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}",
                )
            return 0
        for backend in backends:
            _say(backend, **_tried(architecture, folder, Path(scratch) / backend, backend))
    return 0


def _tried(architecture: Any, folder: Path, store: Path, backend: str) -> dict[str, Any]:
    from sweeping.judge import judge
    from ts_handlers.cli import main as run
    from ts_handlers.testing import load_archive

    said = io.StringIO()
    command = [
        "build",
        str(folder),
        "--task",
        architecture.task,
        "--name",
        "m",
        "--output",
        str(store),
        "--backend",
        backend,
    ]
    more = []
    if architecture.task == "token-classification":  # each token by itself
        more = ["--set", "output.aggregation_strategy=none", "--set", "output.ignore_labels=[]"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*command, *more])
    if code:
        lines = [line for line in said.getvalue().splitlines() if "error:" in line]
        reason = (lines or said.getvalue().strip().splitlines() or ["no output"])[-1].partition("error: ")[2]
        return {"verdict": "refused", "reason": reason.replace(str(folder), "the folder")[:400]}
    with zipfile.ZipFile(store / "m.mar") as mar:
        mar.extractall(store / "unpacked")
    try:
        difference = judge(architecture, folder, store / "unpacked", load_archive(store / "unpacked"))
    except Exception:  # noqa: BLE001  # the reference itself fails
        return {"verdict": "WRONG", "reason": f"the judge failed: {traceback.format_exc(limit=-2)[-300:]}"}
    verdict = "right" if difference <= LIMITS.get(architecture.task, 1e-3) else "WRONG"
    return {"verdict": verdict, "difference": difference}


def _say(backend: str, verdict: str, difference: float | None = None, reason: str = "") -> None:
    sys.stdout.write(
        json.dumps({"backend": backend, "verdict": verdict, "difference": difference, "reason": reason}) + "\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
