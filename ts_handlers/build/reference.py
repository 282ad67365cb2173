"""The source itself as an engine: what all others are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ts_handlers.batch import Array
from ts_handlers.build.model_source import ModelSource
from ts_handlers.cpu import CpuShare


class SourceSession:
    """The checkpoint's own module in fp32; a `runtime.Session`."""

    max_parallel = 1

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch, padding and all, as the engines do."""
        del num_parallel
        return self._source.run(arrays)

    def resize(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own."""

    def describe(self) -> str:
        """Say what it is."""
        return f"torch {torch.__version__}, fp32, the source"
