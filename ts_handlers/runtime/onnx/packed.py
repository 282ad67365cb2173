"""A graph as ONNX Runtime has it after loading, in a file whose weights all workers of a machine map into their memory.

A session optimizes its graph and packs the weights for the kernels of its CPU, in memory of its own. The first worker has
that written beside the model, and the others map it: they start in a fraction of the time, and the weights are in memory
and in the CPU's last cache once.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ts_handlers.errors import ConfigError
from ts_handlers.machine.features import read_cpuinfo

FOLDER = "packed"
"""Beside the model; it goes when TorchServe deletes the unpacked archive."""

MIN_BYTES = 1 << 20
"""A smaller model is loaded in no time."""

_UNFINISHED = "unfinished-"

Write = Callable[[Path, str], None]

logger = logging.getLogger(__name__)


def packed_model(model: Path, settings: str, write: Write) -> Path | None:
    """Return the packed form of a model, written now if this is the first worker that asks.

    Args:
        model: The ONNX file.
        settings: What else decides the packed form: version and options of the engine.
        write: Writes the packed form to a path, its weights to a file of the given name in the same folder.

    Returns:
        The file to load, not to be optimized again; None where none can be written, which is logged with the reason.
    """
    folder = model.parent / FOLDER
    path = folder / f"{model.stem}-{_key(model, settings)}.onnx"
    if path.exists():
        return path
    try:
        folder.mkdir(exist_ok=True)
        with _locked(folder):
            if not path.exists():
                _write(path, write)
    except (OSError, ConfigError) as error:
        logger.warning("ts_handlers: each worker has weights of its own: %s cannot be written (%s)", path.name, error)
        return None
    return path


def _key(model: Path, settings: str) -> str:
    """Return a name for what was read and where it runs: packed weights are for one kind of CPU."""
    status, cpu = model.stat(), read_cpuinfo()
    parts = (status.st_size, status.st_mtime_ns, settings, cpu.model_name, cpu.flags)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process write at a time; the kernel unlocks for one that is killed."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, write: Write) -> None:
    """Write both files aside and move them, the one that others look for last."""
    for left in path.parent.glob(f"{_UNFINISHED}*"):  # of a worker that was killed
        shutil.rmtree(left)
    weights = f"{path.stem}.bin"
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=path.parent) as unfinished:
        written = Path(unfinished, path.name)
        write(written, weights)
        beside = written.with_name(weights)
        if beside.exists():  # not where no weight is large
            beside.replace(path.with_name(weights))
        written.replace(path)
