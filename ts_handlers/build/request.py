"""What to build, as `ts-handlers build` was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.build.gate import Limits
from ts_handlers.build.target import NATIVE

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        source: Hugging Face folder or hub id; of images also an .onnx, .pt or .pt2 file, or a state dict.
        task: Hugging Face task name.
        name: Model name.
        version: Model version.
        output: Folder for the results.
        precision: fp32, bf16, fp16, int8, or `auto`: the fastest that passes the gate.
        backend: Engine; `auto`, with precision `auto`: any that is installed.
        quantizer: How int8 is made; None: the backend's first method.
        form: Of a backend that runs models in several; None: its first, or with `auto` any.
        target_cpu: CPU that will serve, as `--target-cpu` has it.
        calibration: Samples whose activations may be measured.
        evaluation: Samples to judge the build on; labelled for text-classification.
        limits: What passes the gate.
        handler: A team's own handler file; None: the task's.
        samples: Texts to check the build on; None: built-in ones.
        tolerance: Largest relative error against the source; None: the precision's.
        labels: File with the names of labels; None: the source's.
        preprocessor: preprocessor_config.json of a model of images; None: the one beside it.
        model_file: Python file with the class of a state dict.
        sample_request: JSON file with a request the finished archive must answer; None: the task's.
        settings: Overrides of the handler section.
        response_timeout_s: Seconds a worker may take for a batch.
        startup_timeout_s: Seconds a worker may take to load the model.
        weight: Its share of the workers against other models' weights, for `ts-handlers configure`.
        force: Whether an archive of this name may be replaced.
    """

    source: str
    task: str
    name: str
    version: str
    output: Path
    precision: str
    backend: str
    quantizer: str | None = None
    target_cpu: str = NATIVE
    calibration: Path | None = None
    evaluation: Path | None = None
    limits: Limits = field(default_factory=Limits)
    handler: Path | None = None
    samples: Path | None = None
    tolerance: float | None = None
    labels: Path | None = None
    preprocessor: Path | None = None
    model_file: Path | None = None
    sample_request: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    response_timeout_s: int = 120
    startup_timeout_s: int = 120
    weight: float = 1.0
    force: bool = False
    form: str | None = None

    @property
    def is_judged(self) -> bool:
        """Whether there is data for the gate."""
        return self.calibration is not None or self.evaluation is not None
