"""The source itself as an engine: what all others are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.gate import Answers, Reference
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.config.tasks import TASKS
from ts_handlers.machine import CpuShare
from ts_handlers.runtime import Session
from ts_handlers.shapes import Array


def make_reference(
    source: ModelSource,
    output: Mapping[str, Any],
    inputs: Iterable[ModelInput],
    session: Session,
    calls: ModelCalls,
    labels: Sequence[int] | None = None,
) -> Reference:
    """Run the model in fp32, and return its answers to compare engines with.

    Args:
        source: The model.
        output: `handler.output` of the archive; what a team's own handler adds to it is left out.
        inputs: The samples.
        session: The fp32 engine.
        calls: How samples share its calls.
        labels: Right label of each sample; None without labels.
    """
    known = {field.name for field in fields(TASKS[source.task].output_config)}
    settings = {name: value for name, value in output.items() if name in known}
    return Reference(Answers(source.task, settings, len(source.labels)), inputs, session, calls, labels)


class SourceSession:
    """The checkpoint's own module in fp32; a `runtime.Session`."""

    max_parallel = 1
    runs_on_device = False

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch, padding and all, as the engines do."""
        del num_parallel
        return self._source.run(arrays)

    def change_threads(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own."""

    def describe(self) -> str:
        """Say what it is."""
        return f"torch {torch.__version__}, fp32, the source"
