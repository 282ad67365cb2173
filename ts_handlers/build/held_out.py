"""Calibration samples that a method keeps to judge its own candidates by: never those that it measures on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.engine import Material
from ts_handlers.build.gate import Quality, Reference
from ts_handlers.build.reference import make_reference
from ts_handlers.config.sections import load_config
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session

NUM_SAMPLES = 768
"""Most samples that are read, spread over the file."""

EVERY = 3
"""One of so many is kept to judge by."""

FEW = 64
"""Samples for a first impression."""


class HeldOut:
    """A few of the calibration samples to measure on, and a few to judge by.

    Attributes:
        measured: Samples whose activations may be measured.
        judged: The others.

    Raises:
        OperatorError: There are no calibration samples, or one only.
    """

    def __init__(self, material: Material) -> None:
        samples = material.calibrated().spread(NUM_SAMPLES)
        if len(samples) < 2:
            raise OperatorError(
                f"{material.calibrated().file} has too few samples; give more: some calibrate, some judge"
            )
        self.judged: list[ModelInput] = samples[::EVERY]
        self.measured: list[ModelInput] = [item for index, item in enumerate(samples) if index % EVERY]
        self._material = material
        # as a worker with the INT8 model makes them: what shares a call is quantized together
        bucketing = load_config({"handler": {"runtime": {"backend": "onnx", "precision": "int8"}}}).bucketing
        self._calls = ModelCalls(bucketing, material.source.pad_values, material.source.sequence_outputs)

    def quality(self, session: Session) -> Quality:
        """Compare an engine with fp32."""
        return self._reference.quality(session, self._calls)

    def first_impression(self, session: Session) -> Quality:
        """Compare an engine with fp32 on FEW samples."""
        return self._small_reference.quality(session, self._calls)

    @cached_property
    def _reference(self) -> Reference:
        return self._reference_on(self.judged)

    @cached_property
    def _small_reference(self) -> Reference:
        return self._reference_on(self.judged[:: max(1, len(self.judged) // FEW)][:FEW])

    def _reference_on(self, inputs: Sequence[ModelInput]) -> Reference:
        fp32 = open_on_one_thread(self._material.fused, {"backend": "onnx", "precision": "fp32"})
        return make_reference(self._material.source, self._material.output, inputs, fp32, self._calls)


def open_on_one_thread(model: Path, runtime: Mapping[str, Any]) -> Session:
    """Open an engine's file as a worker with one thread will."""
    config = load_config({"handler": {"runtime": dict(runtime)}})
    return open_session(config.runtime, ModelFiles(model.parent, model.name), cpu_share(CpuBudget((0,)), 1, threads=1))
