"""A folder or a file with a model of images -> an `ImageSource`: what it takes is read, what it returns is found out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ts_handlers.batch import Array
from ts_handlers.build.checkpoint import account_for_weights, load_checkpoint
from ts_handlers.build.forms.label_file import read_label_file, with_own_names
from ts_handlers.build.forms.outputs import read_outputs
from ts_handlers.build.forms.own_scale import scale_of_graph, scale_of_module
from ts_handlers.build.forms.picture_scale import check_scale, whole_numbers
from ts_handlers.build.forms.probe import InputForm, Outputs, Run, probe
from ts_handlers.build.forms.processor import read_preprocessor
from ts_handlers.build.forms.reading import Reading, name_labels
from ts_handlers.build.image_source import TYPICAL_SIZE, Form, ImageSource, Layout
from ts_handlers.build.model_source import digest, file_digest, find_folder, labels_of
from ts_handlers.build.network import Loaded, Network, load_exported, load_script, load_state_dict
from ts_handlers.build.onnx_file import PIXEL_MASK, PIXEL_VALUES, OnnxModel, open_graph, picture_layout
from ts_handlers.errors import OperatorError
from ts_handlers.preprocessing import Preprocessing, Size
from ts_handlers.preprocessor_config import PREPROCESSOR_FILE, parse_preprocessing

_SUFFIXES: Mapping[str, Form] = {".onnx": "onnx", ".pt2": "exported", ".pt": "script", ".pth": "script"}


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gives beside the model.

    Attributes:
        labels: File with the labels' names; a Hugging Face folder has its own.
        preprocessor: preprocessor_config.json; by default the one beside the model.
        model_file: Python file with the class of a state dict.
        reads_outputs: Whether a handler of one's own reads the outputs, so that they may be anything.
    """

    labels: Path | None = None
    preprocessor: Path | None = None
    model_file: Path | None = None
    reads_outputs: bool = False


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
    preprocessor, preprocessing = read_preprocessor(path.parent, given.preprocessor)
    common: dict[str, Any] = {
        "folder": path.parent,
        "task": task,
        "digest": file_digest(path),
        "file": path,
        "preprocessor": preprocessor,
        "preprocessing": preprocessing,
    }
    load = _load_onnx if path.suffix == ".onnx" else _load_module
    return load(path, task, given, common, work)


def _load_folder(source: str, task: str, given: Given) -> ImageSource:
    if given.model_file is not None:
        raise OperatorError(f"--model-file is for a state dict and {source} is no file; give the file of the weights")
    folder = find_folder(source)
    checkpoint = load_checkpoint(source, folder, task)
    model = checkpoint.model
    preprocessor, preprocessing = read_preprocessor(folder, given.preprocessor)
    names, takes_mask = labels_of(model.config), preprocessing.pads and _takes_mask(model)
    given_names = read_label_file(given.labels)
    if given_names is not None:
        names, _ = name_labels(given_names, len(names), source, "as many scores as config.json says")
    found = ImageSource(
        folder=folder,
        task=task,
        model=model,
        labels=with_own_names(names, task),
        input_names=(PIXEL_VALUES, PIXEL_MASK) if takes_mask else (PIXEL_VALUES,),
        digest=digest(folder),
        form="folder",
        file=folder,
        preprocessor=preprocessor,
        preprocessing=preprocessing,
    )
    account_for_weights(found, checkpoint, source)
    return found


def _load_onnx(path: Path, task: str, given: Given, common: dict[str, Any], work: Path) -> ImageSource:
    graph = open_graph(path)
    if graph.batch_size not in (None, 1):
        raise OperatorError(
            f"{path} takes {graph.batch_size} pictures a call; export it with a dynamic batch, or with 1"
        )
    form, notes = _input_form(path, common, graph.size, graph.layout, is_integer=graph.is_integer)
    check_scale(path, scale_of_graph(graph.model.graph, PIXEL_VALUES), common["preprocessing"])
    target = graph.save(work / "given.onnx")
    session = OnnxModel(target)

    def run(values: Array) -> Outputs:
        mask = np.ones((len(values), *form.size), np.int64)
        return session.run({PIXEL_VALUES: values, PIXEL_MASK: mask})

    reading, batch_size, labels = _read(run, form, path, task, given, graph.batch_size)
    graph.save(target, reading.keys)
    return ImageSource(
        **{**common, "file": target},
        model=OnnxModel(target),
        labels=labels,
        input_names=(PIXEL_VALUES, PIXEL_MASK) if graph.takes_mask else (PIXEL_VALUES,),
        form="onnx",
        layout=graph.layout,
        fixed_batch_size=batch_size,
        reading=reading,
        notes=(*notes, *reading.notes),
    )


def _load_module(path: Path, task: str, given: Given, common: dict[str, Any], work: Path) -> ImageSource:
    del work
    loaded, form = _open_module(path, given)
    layout, batch_size, size = _declared(path, loaded.shape)
    if batch_size not in (None, 1):
        raise OperatorError(f"{path} takes {batch_size} pictures a call; export it with a dynamic batch, or with 1")
    taken, notes = _input_form(path, common, size, layout, is_integer=not loaded.dtype.is_floating_point)
    if loaded.shape is None and not _runs(loaded.run(), taken) and _runs(loaded.run(), replace(taken, layout="NHWC")):
        layout, taken = "NHWC", replace(taken, layout="NHWC")
    reading, batch_size, labels = _read(loaded.run(), taken, path, task, given, batch_size)
    check_scale(path, scale_of_module(loaded.module, loaded.example(taken)), common["preprocessing"])
    return ImageSource(
        **common,
        model=Network(loaded, reading.keys).eval(),
        labels=labels,
        input_names=(PIXEL_VALUES,),
        form=form,
        layout=layout,
        fixed_batch_size=batch_size,
        model_file=given.model_file if form == "state_dict" else None,
        state=loaded.state,
        reading=reading,
        notes=(*filter(None, (loaded.note,)), *notes, *reading.notes),
    )


def _open_module(path: Path, given: Given) -> tuple[Loaded, Form]:
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


def _declared(path: Path, shape: tuple[int | None, ...] | None) -> tuple[Layout, int | None, Size | None]:
    """Return layout, rows and size that a file says its model takes; None where it takes any, or does not say."""
    if shape is None:
        return "NCHW", None, None
    if len(shape) != 4:
        raise OperatorError(f"{path} takes an array of {len(shape)} axes; pictures have four")
    layout = picture_layout(path, shape)
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return layout, shape[0], None if height is None or width is None else (height, width)


def _input_form(
    path: Path, common: dict[str, Any], size: Size | None, layout: Layout, *, is_integer: bool
) -> tuple[InputForm, list[str]]:
    """Say what a model is fed, and make its preprocessing fit: `common` is changed where it takes whole numbers."""
    notes: list[str] = []
    if is_integer:
        common["preprocessor"], note = whole_numbers(path, common["preprocessor"], common["preprocessing"])
        common["preprocessing"] = parse_preprocessing(common["preprocessor"], PREPROCESSOR_FILE)
        notes = [note] if note else []
    preprocessing: Preprocessing = common["preprocessing"]
    made = preprocessing.fixed_size
    if size is not None and size != made:
        raise OperatorError(
            f"{path} takes pictures of {size[0]} x {size[1]} (height x width) and its preprocessing makes "
            f"{made or 'many sizes'}; correct preprocessor_config.json"
        )
    usual = made or preprocessing.input_size(*TYPICAL_SIZE)
    return InputForm(usual, layout, preprocessing.scale, preprocessing.shift, is_integer), notes


def _runs(run: Run, form: InputForm) -> bool:
    """Say whether a model that names no shape takes pictures of this layout."""
    try:
        run(form.values(np.zeros((*form.size, 3))))
    except Exception:  # noqa: BLE001  # what is wrong is said where the model is read
        return False
    return True


def _read(
    run: Run, form: InputForm, path: Path, task: str, given: Given, batch_size: int | None
) -> tuple[Reading, int | None, tuple[str, ...]]:
    """Return how a model's outputs are read, the rows of its calls, and its labels."""
    found = probe(run, form, str(path), tries_pairs=batch_size is None)
    reading = read_outputs(task, found, read_label_file(given.labels), str(path), is_free=given.reads_outputs)
    if batch_size is None and not found.takes_pairs:
        batch_size = 1
        note = "two pictures in one call fail, or are answered otherwise than alone: each has a call of its own"
        reading = replace(reading, notes=(*reading.notes, note))
    return reading, batch_size, with_own_names(reading.labels, task)


def _takes_mask(model: Any) -> bool:
    return PIXEL_MASK in inspect.signature(model.forward).parameters
