"""A model of images, and what the build needs to know of it: of a folder, ONNX, TorchScript, torch.export or weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ts_handlers.build.image_files.onnx_file import PIXEL_MASK, PIXEL_VALUES
from ts_handlers.build.image_outputs.probe import Layout
from ts_handlers.build.image_outputs.reading import Reading
from ts_handlers.build.sources.model import OUTPUT_NAMES, ModelSource
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.preprocessing import Preprocessing
from ts_handlers.imaging.processors.preprocessor_config import PREPROCESSOR_FILE
from ts_handlers.runtime.torch.program import DETECTOR_OUTPUTS
from ts_handlers.shapes import Size

Form = Literal["folder", "onnx", "script", "exported", "state_dict"]
"""What a source was read from."""

TYPICAL_SIZE: Size = (480, 640)
"""(height, width) of a picture, where the model takes any."""


@dataclass(frozen=True, slots=True)
class ImageSource(ModelSource):
    """A model of images in memory.

    Attributes:
        form: What it was read from.
        file: The model's file; of a folder the folder.
        preprocessor: Contents of its preprocessor_config.json.
        preprocessing: What they mean.
        layout: Axes of its pixel_values.
        model_file: Python file with its class, where it is a state dict.
        state: Its weights, where it is a state dict.
        reading: How its outputs are read.
        processor: transformers' image processor of a folder; None where there is none, or it cannot be loaded here.
    """

    form: Form
    file: Path
    preprocessor: Mapping[str, Any]
    preprocessing: Preprocessing
    layout: Layout = "NCHW"
    model_file: Path | None = None
    state: Mapping[str, torch.Tensor] | None = None
    reading: Reading = field(default_factory=lambda: Reading({}))
    processor: Any = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(self.reading.keys) or OUTPUT_NAMES[self.task]

    @property
    def is_detector(self) -> bool:
        """Whether it returns a list of detections, as torchvision's detectors do."""
        return set(DETECTOR_OUTPUTS) <= set(self.output_names)

    @property
    def pads_images(self) -> bool:
        """Whether it takes a mask of what is padding."""
        return PIXEL_MASK in self.input_names

    @property
    def architecture(self) -> str:
        """Name of the module's class, or the form."""
        if self.form in ("folder", "state_dict"):
            return type(getattr(self.model, "module", self.model)).__name__
        return self.form

    @property
    def input_size(self) -> Size:
        """(height, width) of a usual input."""
        return self.preprocessing.fixed_size or self.preprocessing.input_size(*TYPICAL_SIZE)

    def scripted(self) -> torch.nn.Module | None:
        """Return the model as it was scripted.

        Raises:
            OperatorError: It takes a list of pictures.
        """
        if self.is_detector:
            raise OperatorError(f"{self.file} takes a list of pictures and has no ONNX form here; use --backend torch")
        return self.model.scripted(self.example()[PIXEL_VALUES]) if self.form == "script" else None

    def example(self) -> dict[str, torch.Tensor]:
        """Return pictures of a usual size: two, or as many as a call takes."""
        size, rows = self.input_size, self.max_batch_size or 2
        shape = (rows, 3, *size) if self.layout == "NCHW" else (rows, *size, 3)
        generator = torch.Generator().manual_seed(0)
        levels = torch.randint(0, 256, shape, generator=generator).float()
        found = {PIXEL_VALUES: levels * max(self.preprocessing.scale)}
        if self.pads_images:
            found[PIXEL_MASK] = torch.ones(rows, *size, dtype=torch.int64)
        return found

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return batch, and height and width where pictures keep their shape."""
        names = (*self.input_names, *self.output_names)
        axes: dict[str, dict[int, str]] = {name: {0: "batch"} if self.max_batch_size is None else {} for name in names}
        if self.preprocessing.fixed_size is None:
            first = 2 if self.layout == "NCHW" else 1
            axes[PIXEL_VALUES] |= {first: "height", first + 1: "width"}
            if self.pads_images:
                axes[PIXEL_MASK] |= {1: "height", 2: "width"}
            if self.task == "image-segmentation" and "logits" in axes:
                axes["logits"] |= self._mask_axes()
        return axes

    def _mask_axes(self) -> dict[int, str]:
        """Return the axes of a mask that follow the picture's."""
        with torch.inference_mode():
            rank = self.model(**self.example(), return_dict=True)["logits"].ndim
        first = rank - 2 if self.reading.output.get("pixels") != "labels_last" else 1
        return {first: "rows", first + 1: "columns"}

    def write_files(self, folder: Path) -> list[Path]:
        """Write preprocessor_config.json."""
        path = folder / PREPROCESSOR_FILE
        path.write_text(json.dumps(self.preprocessor, indent=2) + "\n", encoding="utf-8")
        return [path]

    def section(self) -> dict[str, Any]:
        """Return what the worker must know of the model's inputs, and what the folder says of the output."""
        image = {"layout": self.layout, "pixel_mask": self.pads_images}
        found: dict[str, Any] = {"image": image, "output": dict(self.reading.output)}
        problem_type = getattr(getattr(self.model, "config", None), "problem_type", None)
        if self.task == "image-classification" and problem_type:
            found["output"]["problem_type"] = problem_type
        if self.max_batch_size is not None:
            found["bucketing"] = {"max_batch_size": self.max_batch_size}
        return found
