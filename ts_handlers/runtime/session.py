"""What every engine offers the handler, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ts_handlers.errors import ConfigError
from ts_handlers.machine import CpuShare
from ts_handlers.shapes import Array


class Session(Protocol):
    """A loaded model."""

    @property
    def max_parallel(self) -> int:
        """Calls of `run` that may be made at the same time, from threads of their own; 1 where each has all threads."""

    @property
    def runs_on_device(self) -> bool:
        """Whether the model computes elsewhere, so that the worker's threads can do something else meanwhile."""

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch.

        Args:
            arrays: Named inputs, each `(batch, padded_length, ...)`. What the model does not take is not fed.
            num_parallel: How many calls are being made at the same time, this one included.

        Returns:
            Named outputs, each `(batch, ...)`; floating point ones as float32.
        """

    def change_threads(self, share: CpuShare) -> None:
        """Take another share of the CPUs between two batches; where the engine cannot, log why and go on as before."""

    def describe(self) -> str:
        """Say engine, device and precision in a few words, as read from the loaded model."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are.

    Attributes:
        model_dir: The unpacked archive.
        serialized_file: The archive's serialized file, if it has one.
        model_file: The archive's Python file with the model class, if it has one.
        gpu_id: GPU that TorchServe gave this worker; None on the CPU.
    """

    model_dir: Path
    serialized_file: str | None = None
    model_file: str | None = None
    gpu_id: int | None = None

    def path(self, configured: str | None) -> Path:
        """Return the model file: the configured one, else the serialized one.

        Raises:
            ConfigError: Neither is named, or it is not in the archive.
        """
        name = configured or self.serialized_file
        if name is None:
            raise ConfigError("the archive has no serialized file; name the model in handler.runtime.file")
        path = self.model_dir / name
        if not path.exists():
            raise ConfigError(f"{name} is not in the archive; add it, or correct handler.runtime.file")
        return path
