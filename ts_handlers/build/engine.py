"""What a build makes of a model: the files of one engine, what they are made from, and the ways to make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ts_handlers.build import export
from ts_handlers.build.gate import Limits
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import Source
from ts_handlers.build.steps import Progress, step
from ts_handlers.build.target import TargetCpu
from ts_handlers.errors import OperatorError

Shared = TypeVar("Shared")


@dataclass(frozen=True, slots=True)
class Engine:
    """The model's files in the archive, and how they are run.

    Attributes:
        serialized_file: The model.
        runtime: `handler.runtime` for it: backend, precision and what else the engine needs.
        extra_files: What it needs beside it.
        sections: Other sections of `handler` that belong to it (bucketing, say).
        details: What was done, for the build report.
        model_file: Python file with the model's class, of a state dict.
    """

    serialized_file: Path
    runtime: Mapping[str, Any]
    extra_files: tuple[Path, ...] = ()
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_file: Path | None = None


class Material:
    """What engines are made from. The graphs are made when first asked for, and shared by all methods.

    Args:
        source: The model.
        work: Folder for what is shared between methods.
        target: The CPU that will serve.
        calibration: Inputs whose activations may be measured; None where none were given.
        progress: Called with each step.
        limits: What passes the gate; methods that trade speed for quality aim at it.
        section: `handler:` of the archive as far as the engine has no part in it, the user's own settings among it.
    """

    def __init__(
        self,
        source: ModelSource,
        work: Path,
        target: TargetCpu,
        calibration: Dataset | None = None,
        progress: Progress = print,
        limits: Limits | None = None,
        section: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_source, self.work, self.target = source, work, target
        self.calibration, self.progress = calibration, progress
        self.limits, self.section = limits or Limits(), section or {}
        self._shared: dict[str, Any] = {}

    def calibrated(self) -> Dataset:
        """Return the inputs whose activations may be measured.

        Raises:
            OperatorError: None were given.
        """
        if self.calibration is None:
            raise OperatorError("this method measures activations; give --calibration FILE")
        return self.calibration

    @property
    def output(self) -> Mapping[str, Any]:
        """`handler.output` of the archive: how a client's answers are made of the model's outputs."""
        output: Mapping[str, Any] = self.section.get("output", {})
        return output

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence, as the archive will have it."""
        return int(self.section.get("tokenizer", {}).get("max_length") or self.source.max_length)

    def shared(self, name: str, make: Callable[[], Shared]) -> Shared:
        """Return what several methods need, made when first asked for; where that fails, it fails for all of them."""
        if name not in self._shared:
            try:
                self._shared[name] = make()
            except Exception as error:  # noqa: BLE001  # kept for the other methods, and raised
                self._shared[name] = error
        found: Shared | Exception = self._shared[name]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def source(self) -> Source:
        """The model, which takes texts.

        Raises:
            OperatorError: It takes images.
        """
        if not isinstance(self.model_source, Source):
            raise OperatorError(f"this method is for texts, and {self.model_source.task} takes images")
        return self.model_source

    @cached_property
    def exported(self) -> Path:
        """The model as fp32 ONNX of standard operators, with dynamic batch and length."""
        if isinstance(self.model_source, ImageSource) and self.model_source.form == "onnx":
            return self.model_source.file
        path = self.work / "exported.onnx"
        with step(self.progress, "export to ONNX"):
            export.export_onnx(self.model_source, path)
        return path

    @cached_property
    def fused(self) -> Path:
        """The exported model with attention, GELU and embedding fused for ONNX Runtime, in fp32."""
        exported = self.exported
        if not isinstance(self.model_source, Source):
            return exported
        path = self.work / "fused.onnx"
        with step(self.progress, "fuse attention for ONNX Runtime"):
            self.fused_operators = export.fuse(self.source, exported, path)
        if not self.fused_operators.get("Attention"):
            kind = self.source.model.config.model_type
            self.progress(f"  no attention was fused ({kind}): right, and slower than it could be")
        return path

    fused_operators: Mapping[str, int] = {}
    """How many of each operator of ONNX Runtime's own domain `fused` has, once it was made."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make an engine.

    Attributes:
        backend: The engine's, as `--backend` has it.
        precision: As `--precision` has it.
        quantizer: As `--quantizer` has it; None where nothing is quantized.
        make: Writes the engine's files into a folder of its own. Raises OperatorError where the model does not lend
            itself to it, and ConfigError or RuntimeUnavailableError as engines do.
        packages: Modules it imports that a plain ts_handlers[build] does not have.
        needs_calibration: Whether it measures activations.
        is_automatic: Whether `--precision auto` tries it.
        form: As `--form` has it; None where the backend has one form only.
        takes_images: Whether it can be used for models of images.
    """

    backend: str
    precision: str
    quantizer: str | None
    make: Callable[[Material, Path], Engine]
    packages: tuple[str, ...] = ()
    needs_calibration: bool = False
    is_automatic: bool = True
    form: str | None = None
    takes_images: bool = False

    @property
    def name(self) -> str:
        """Backend, precision, quantizer and form in a few words; eager torch is torch."""
        form = None if self.form == "eager" else self.form
        return " ".join(filter(None, (self.backend, self.precision, self.quantizer, form)))
