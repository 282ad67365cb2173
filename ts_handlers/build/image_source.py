"""A model of images, and what the build needs to know of it: of a folder, ONNX, TorchScript, torch.export or weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ts_handlers.build.checkpoint import account_for_weights, load_checkpoint
from ts_handlers.build.model_source import (
    OUTPUT_NAMES,
    ModelSource,
    digest,
    file_digest,
    find_folder,
    labels_of,
    read_json,
)
from ts_handlers.build.network import Network, load_exported, load_script, load_state_dict
from ts_handlers.build.onnx_file import PIXEL_MASK, PIXEL_VALUES, OnnxModel, adopt, count_weights
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.preprocessing import Preprocessing, Size
from ts_handlers.preprocessor_config import PREPROCESSOR_FILE, parse_preprocessing
from ts_handlers.runtime.torch_script import DETECTOR_OUTPUTS, ListDetector, takes_list

Form = Literal["folder", "onnx", "script", "exported", "state_dict"]
"""What a source was read from."""

TYPICAL_SIZE: Size = (480, 640)
"""(height, width) of a picture, where the model takes any."""

_SUFFIXES: Mapping[str, Form] = {".onnx": "onnx", ".pt2": "exported", ".pt": "script", ".pth": "script"}


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gives beside the model.

    Attributes:
        labels: File with the labels' names; a Hugging Face folder has its own.
        preprocessor: preprocessor_config.json; by default the one beside the model.
        model_file: Python file with the class of a state dict.
    """

    labels: Path | None = None
    preprocessor: Path | None = None
    model_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ImageSource(ModelSource):
    """A model of images in memory.

    Attributes:
        form: What it was read from.
        file: The model's file; of a folder the folder.
        preprocessor: Contents of its preprocessor_config.json.
        preprocessing: What they mean.
        layout: Axes of its pixel_values.
        fixed_batch_size: Rows of each call; None where any number is taken.
        model_file: Python file with its class, where it is a state dict.
        is_detector: Whether it takes a list of pictures and returns a list of detections, as torchvision's do.
    """

    form: Form
    file: Path
    preprocessor: Mapping[str, Any]
    preprocessing: Preprocessing
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    fixed_batch_size: int | None = None
    model_file: Path | None = None
    is_detector: bool = False

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return DETECTOR_OUTPUTS if self.is_detector else OUTPUT_NAMES[self.task]

    @property
    def pads_images(self) -> bool:
        """Whether it takes a mask of what is padding."""
        return PIXEL_MASK in self.input_names

    @property
    def max_batch_size(self) -> int | None:
        """Most rows of a call; None where any number is taken."""
        return self.fixed_batch_size

    @property
    def architecture(self) -> str:
        """Name of the module's class, or the form."""
        if self.form in ("folder", "state_dict"):
            return type(getattr(self.model, "module", self.model)).__name__
        return self.form

    @property
    def num_parameters(self) -> int:
        """How many numbers the model holds."""
        if self.form == "onnx":
            return count_weights(self.file)
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def input_size(self) -> Size:
        """(height, width) of a usual input."""
        return self.preprocessing.fixed_size or self.preprocessing.resized(*TYPICAL_SIZE)

    def scripted(self) -> torch.nn.Module | None:
        """Return the model as it was scripted.

        Raises:
            OperatorError: It takes a list of pictures.
        """
        if self.is_detector:
            raise OperatorError(f"{self.file} takes a list of pictures and has no ONNX form here; use --backend torch")
        module: torch.nn.Module | None = self.model.module if self.form == "script" else None
        return module

    def example(self) -> dict[str, torch.Tensor]:
        """Return two grey pictures of a usual size."""
        size = self.input_size
        shape = (2, 3, *size) if self.layout == "NCHW" else (2, *size, 3)
        generator = torch.Generator().manual_seed(0)
        found = {PIXEL_VALUES: torch.rand(shape, generator=generator)}
        if self.pads_images:
            found[PIXEL_MASK] = torch.ones(2, *size, dtype=torch.int64)
        return found

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return batch, and height and width where pictures keep their shape."""
        axes = {name: {0: "batch"} for name in (*self.input_names, *self.output_names)}
        if self.preprocessing.fixed_size is None:
            axes[PIXEL_VALUES] |= {2: "height", 3: "width"}
            if self.pads_images:
                axes[PIXEL_MASK] |= {1: "height", 2: "width"}
            if self.task == "image-segmentation":
                axes["logits"] |= {2: "rows", 3: "columns"}
        return axes

    def write_files(self, folder: Path) -> list[Path]:
        """Write preprocessor_config.json."""
        path = folder / PREPROCESSOR_FILE
        path.write_text(json.dumps(self.preprocessor, indent=2) + "\n", encoding="utf-8")
        return [path]

    def section(self) -> dict[str, Any]:
        """Return what the worker must know of the model's inputs, and what the folder says of the output."""
        found: dict[str, Any] = {"image": {"layout": self.layout, "pixel_mask": self.pads_images}, "output": {}}
        problem_type = getattr(getattr(self.model, "config", None), "problem_type", None)
        if self.task == "image-classification" and problem_type:
            found["output"]["problem_type"] = problem_type
        if self.fixed_batch_size is not None:
            found["bucketing"] = {"max_batch_size": self.fixed_batch_size}
        return found


def load_image_source(source: str, task: str, given: Given, work: Path) -> ImageSource:
    """Read a model of images.

    Args:
        source: A Hugging Face folder or hub id, an .onnx, .pt or .pt2 file, or, with a model file, a state dict.
        task: A task of images.
        given: What else the command line gives.
        work: Folder for a graph with our names.

    Raises:
        OperatorError: It cannot be read, does not serve the task, or lacks labels or preprocessing.
    """
    path = Path(source)
    if not path.is_file():
        return _load_folder(source, task, given)
    preprocessor, preprocessing = _read_preprocessor(path.parent, given)
    labels = _unique(_read_labels(given, source), task)
    common: dict[str, Any] = {
        "folder": path.parent,
        "task": task,
        "labels": labels,
        "digest": file_digest(path),
        "file": path,
        "preprocessor": preprocessor,
        "preprocessing": preprocessing,
    }
    if path.suffix == ".onnx":
        return _load_onnx(path, task, common, work)
    module, form = _load_module(path, given)
    is_detector = task == "object-detection" and takes_list(module)
    model = ListDetector(module) if is_detector else Network(module, OUTPUT_NAMES[task])
    return ImageSource(
        **common,
        model=model.eval(),
        input_names=(PIXEL_VALUES,),
        form=form,
        model_file=given.model_file if form == "state_dict" else None,
        is_detector=is_detector,
    )


def _load_folder(source: str, task: str, given: Given) -> ImageSource:
    if given.model_file is not None:
        raise OperatorError(f"--model-file is for a state dict and {source} is no file; give the file of the weights")
    folder = find_folder(source)
    checkpoint = load_checkpoint(source, folder, task)
    model = checkpoint.model
    preprocessor, preprocessing = _read_preprocessor(folder, given)
    labels = _read_labels(given, source) if given.labels is not None else labels_of(model.config)
    takes_mask = preprocessing.pads and _takes_mask(model)
    found = ImageSource(
        folder=folder,
        task=task,
        model=model,
        labels=_unique(labels, task),
        input_names=(PIXEL_VALUES, PIXEL_MASK) if takes_mask else (PIXEL_VALUES,),
        digest=digest(folder),
        form="folder",
        file=folder,
        preprocessor=preprocessor,
        preprocessing=preprocessing,
    )
    account_for_weights(found, checkpoint, source)
    return found


def _load_onnx(path: Path, task: str, common: dict[str, Any], work: Path) -> ImageSource:
    graph = adopt(path, task, work / "given.onnx")
    preprocessing: Preprocessing = common["preprocessing"]
    if graph.size is not None and graph.size != preprocessing.fixed_size:
        raise OperatorError(
            f"{path} takes pictures of {graph.size[0]} x {graph.size[1]} (height x width) and its preprocessing makes "
            f"{preprocessing.fixed_size or 'many sizes'}; correct preprocessor_config.json"
        )
    if graph.batch_size not in (None, 1):
        raise OperatorError(
            f"{path} takes {graph.batch_size} pictures a call; export it with a dynamic batch, or with 1"
        )
    names = (PIXEL_VALUES, PIXEL_MASK) if graph.takes_mask else (PIXEL_VALUES,)
    return ImageSource(
        **{**common, "file": graph.path},
        model=OnnxModel(graph.path),
        input_names=names,
        form="onnx",
        layout=graph.layout,
        fixed_batch_size=graph.batch_size,
    )


def _load_module(path: Path, given: Given) -> tuple[torch.nn.Module, Form]:
    if given.model_file is not None:
        return load_state_dict(path, given.model_file), "state_dict"
    form = _SUFFIXES.get(path.suffix)
    if form == "exported":
        return load_exported(path), form
    if form == "script":
        return load_script(path), form
    raise OperatorError(
        f"{path} is of no known kind; give an .onnx, .pt or .pt2 file, or a state dict with --model-file"
    )


def _takes_mask(model: Any) -> bool:
    return PIXEL_MASK in inspect.signature(model.forward).parameters


def _read_preprocessor(folder: Path, given: Given) -> tuple[Mapping[str, Any], Preprocessing]:
    file = given.preprocessor or folder / PREPROCESSOR_FILE
    if not file.is_file():
        raise OperatorError(
            f"there is no {file}; it says how pictures are resized and normalized: give one with --preprocessor FILE"
        )
    values = read_json(file)
    try:
        return values, parse_preprocessing(values, str(file))
    except ConfigError as error:
        raise OperatorError(str(error)) from error


def _read_labels(given: Given, source: str) -> tuple[str, ...]:
    """Read names of labels: a line each, or JSON: a list, or {"0": name or [id, name], ...}."""
    file = given.labels
    if file is None:
        raise OperatorError(f"{source} names no labels; give them with --labels FILE, one a line in the model's order")
    if file.suffix != ".json":
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"--labels {file} cannot be read as UTF-8 text: {error}") from error
        names = [line.strip() for line in lines if line.strip()]
    else:
        values = read_json(file)
        if isinstance(values, Mapping):
            if set(values) != {str(index) for index in range(len(values))}:
                raise OperatorError(f'--labels {file} must map "0", "1", ... to names, without a gap')
            values = [values[str(index)] for index in range(len(values))]
        if not isinstance(values, list):
            raise OperatorError(f"--labels {file} holds a {type(values).__name__}; a list or an object is needed")
        names = [str(value[-1] if isinstance(value, list) and value else value) for value in values]
    if not names:
        raise OperatorError(f"--labels {file} names no label; write one a line")
    return tuple(names)


def _unique(labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    """Number labels that share a name where answers have them as keys: ImageNet has two cranes, a bird and a machine."""
    if task != "image-classification":
        return labels
    seen: set[str] = set()
    names = []
    for index, label in enumerate(labels):
        names.append(f"{label} ({index})" if label in seen else label)
        seen.add(label)
    return tuple(names)
