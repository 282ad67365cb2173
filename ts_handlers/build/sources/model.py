"""What a build needs to know of any model; `source` has that of texts, `image_source` that of images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.config.reading import load_json
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.shapes import Array

OUTPUT_NAMES: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "feature-extraction": ("last_hidden_state",),
    "image-classification": ("logits",),
    "object-detection": ("logits", "pred_boxes"),
    "image-segmentation": ("logits",),
}
"""Outputs of each task's model, in the order they are exported."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model in memory.

    Attributes:
        folder: Where it was read.
        task: What it is built for.
        model: The model, in fp32, in eval mode; called with its inputs by name and `return_dict=True`.
        labels: Names of its labels, by index; empty where the task has none.
        input_names: Arrays that are made for it and that it takes.
        digest: SHA-256 over what it was read from.
        remembers: Whether a run changes what later runs answer (some models choose their attention by the first length that
            they see), so that each needs a copy of its own.
        max_batch_size: Most rows of a call; None where any number is taken.
        notes: What was found in its files, for the user.
    """

    folder: Path
    task: str
    model: Any
    labels: tuple[str, ...]
    input_names: tuple[str, ...]
    digest: str
    remembers: bool = field(default=False, kw_only=True)
    max_batch_size: int | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return OUTPUT_NAMES[self.task]

    @property
    def sequence_outputs(self) -> tuple[str, ...]:
        """Those of them with a sequence as their second axis."""
        return ()

    @property
    def pad_values(self) -> Mapping[str, int]:
        """Fill of each input where it is padded."""
        return {}

    @property
    def pads_images(self) -> bool:
        """Whether images of different sizes may share a call."""
        return False

    @property
    def architecture(self) -> str:
        """Name of what it is, for the build report."""
        return type(self.model).__name__

    @property
    def num_parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def unused_model(self) -> Any:
        """Return the model as it was loaded, or, where it remembers its runs, a copy that shares its weights."""
        return copy_of(self.model) if self.remembers else self.model

    def scripted(self) -> torch.nn.Module | None:
        """Return the model as TorchScript, which is exported without being traced; None where it is none."""
        return None

    def example(self) -> dict[str, torch.Tensor]:
        """Return inputs of two rows, to trace the model with."""
        raise NotImplementedError

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return the axes of inputs and outputs that change from call to call, by name."""
        raise NotImplementedError

    def write_files(self, folder: Path) -> list[Path]:
        """Write what a worker needs beside the model and its labels."""
        raise NotImplementedError

    def section(self) -> dict[str, Any]:
        """Return `handler` as far as the source decides it."""
        raise NotImplementedError

    def calls(self, bucketing: BucketingConfig) -> ModelCalls:
        """Return how a worker's calls of it are made."""
        return ModelCalls(bucketing, self.pad_values, self.sequence_outputs, pads_images=self.pads_images)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on one batch.

        Raises:
            OperatorError: It does not return what the task needs.
        """
        feed = {name: torch.from_numpy(arrays[name]) for name in self.input_names}
        with torch.inference_mode():
            outputs = self.unused_model()(**feed, return_dict=True)
        if lacking := [name for name in self.output_names if name not in outputs]:
            raise OperatorError(
                f"{self.architecture} returns {', '.join(outputs)}, and {self.task} needs {', '.join(lacking)}; take "
                "another task, or serve it with a handler of your own"
            )
        found = {name: outputs[name] for name in self.output_names}
        return {
            name: item.float().numpy() if item.is_floating_point() else item.numpy() for name, item in found.items()
        }


def copy_of(model: Any) -> Any:
    """Return a copy of a model that shares its weights and none of its state."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def find_folder(source: str) -> Path:
    """Return the folder of a checkpoint, fetched from the hub where it is not one.

    Raises:
        OperatorError: There is none.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(huggingface_hub.snapshot_download(source))
    except Exception as error:  # the hub client raises errors of several packages
        raise OperatorError(f"there is no folder {source}, and no such model on the hub: {all_lines(error)}") from error


def labels_of(config: Any) -> tuple[str, ...]:
    """Return the names of a checkpoint's labels, by index.

    Raises:
        OperatorError: Some have none.
    """
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if sorted(names) != list(range(config.num_labels)):
        raise OperatorError(
            f"config.json names the labels {', '.join(map(str, sorted(names)))} (id2label), and the model has "
            f"{config.num_labels}: name 0 to {config.num_labels - 1}, without a gap"
        )
    return tuple(names[index] for index in range(len(names)))


def digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{file.relative_to(folder)}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    content = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            content.update(block)
    return content.hexdigest()


def read_lines(file: Path) -> list[str]:
    """Read the lines of a UTF-8 file that are not empty.

    Raises:
        OperatorError: It cannot be read.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            return [line.rstrip("\r\n") for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file} cannot be read as UTF-8 text: {error}") from error


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        OperatorError: It cannot be read.
    """
    try:
        return load_json(file, any_number=True)
    except (OSError, ValueError) as error:
        raise OperatorError(f"{file} cannot be read: {all_lines(error)}") from error
