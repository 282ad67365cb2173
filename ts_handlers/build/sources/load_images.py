"""A folder or a file with a model of images -> an `ImageSource`: what it takes is read, what it returns is found out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ts_handlers.build.image_files.onnx_file import PIXEL_MASK, PIXEL_VALUES, OnnxFile, open_onnx
from ts_handlers.build.image_files.scale import check_scale
from ts_handlers.build.image_files.torch_file import TorchFile, load_exported, load_script, load_state_dict
from ts_handlers.build.image_outputs.outputs import read_outputs
from ts_handlers.build.image_outputs.probe import InputForm, Layout, Run, probe
from ts_handlers.build.image_outputs.reading import name_labels
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.sources.checkpoint import account_for_weights, load_checkpoint
from ts_handlers.build.sources.images import TYPICAL_SIZE, Form, ImageSource
from ts_handlers.build.sources.model import digest, file_digest, find_folder, labels_of, read_json, read_lines
from ts_handlers.build.sources.processor import read_preprocessor, whole_numbers
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.processors.classes import class_name
from ts_handlers.shapes import Size

_NUM_CHANNELS = 3

_NOT_COMPARED = "note: preprocessing was not compared: its settings name no class of transformers"


def load_image_source(request: BuildRequest, work: Path) -> ImageSource:
    """Read a model of images: a Hugging Face folder or hub id, an .onnx, .pt or .pt2 file, or, with a model file, weights.

    Args:
        request: What was asked for.
        work: Folder for a graph with our names.

    Raises:
        OperatorError: It cannot be read, does not serve the task, or lacks labels or preprocessing.
    """
    path = Path(request.source)
    return _load_file(path, request, work) if path.is_file() else _load_folder(request)


def _load_folder(request: BuildRequest) -> ImageSource:
    source, task = request.source, request.task
    if request.model_file is not None:
        raise OperatorError(f"--model-file is for a state dict and {source} is no file; give the file of the weights")
    folder = find_folder(source)
    checkpoint = load_checkpoint(source, folder, task)
    model = checkpoint.model
    prepared = read_preprocessor(folder, request.preprocessor)
    takes_mask = prepared.preprocessing.pads and PIXEL_MASK in inspect.signature(model.forward).parameters
    names, given_names = labels_of(model.config), _read_label_file(request.labels)
    if given_names is not None:
        names, _ = name_labels(given_names, len(names), source, "as many scores as config.json says")
    found = ImageSource(
        folder=folder,
        task=task,
        model=model,
        labels=_with_own_names(names, task),
        input_names=(PIXEL_VALUES, PIXEL_MASK) if takes_mask else (PIXEL_VALUES,),
        digest=digest(folder),
        notes=prepared.notes if class_name(prepared.values) else (_NOT_COMPARED,),
        form="folder",
        file=folder,
        preprocessor=prepared.values,
        preprocessing=prepared.preprocessing,
        processor=prepared.processor,
    )
    account_for_weights(found, checkpoint, source)
    return found


def _load_file(path: Path, request: BuildRequest, work: Path) -> ImageSource:
    prepared = read_preprocessor(path.parent, request.preprocessor)
    form, file = _open(path, request.model_file, work)
    layout, batch_size, size = _declared(path, file.shape)
    if file.is_integer:
        prepared = whole_numbers(path, prepared)
    preprocessing = prepared.preprocessing
    if size is not None and size != preprocessing.fixed_size:
        raise OperatorError(
            f"{path} takes pictures of {size[0]} x {size[1]} (height x width) and its preprocessing makes "
            f"{preprocessing.fixed_size or 'many sizes'}; correct preprocessor_config.json"
        )
    usual = preprocessing.fixed_size or preprocessing.input_size(*TYPICAL_SIZE)
    taken = InputForm(usual, layout, preprocessing.scale, preprocessing.shift, file.is_integer)
    run = file.runner(taken)
    if file.shape is None and not _runs(run, taken) and _runs(run, replace(taken, layout="NHWC")):
        taken = replace(taken, layout="NHWC")
    found = probe(run, taken, str(path), tries_pairs=batch_size is None)
    is_free = request.handler is not None
    reading = read_outputs(request.task, found, _read_label_file(request.labels), str(path), is_free=is_free)
    check_scale(path, file.own_scale(taken), preprocessing)
    notes = [*filter(None, (file.note,)), *prepared.notes, *reading.notes]
    if batch_size is None and not found.takes_pairs:
        batch_size = 1
        notes.append("two pictures in one call fail, or are answered otherwise than alone: each has a call of its own")
    return ImageSource(
        folder=path.parent,
        task=request.task,
        model=file.named(reading.keys),
        labels=_with_own_names(reading.labels, request.task),
        input_names=(PIXEL_VALUES, PIXEL_MASK) if file.takes_mask else (PIXEL_VALUES,),
        digest=file_digest(path),
        notes=tuple(notes),
        form=form,
        file=file.path,
        preprocessor=prepared.values,
        preprocessing=preprocessing,
        layout=taken.layout,
        max_batch_size=batch_size,
        model_file=request.model_file if form == "state_dict" else None,
        state=file.state,
        reading=reading,
    )


def _open(path: Path, model_file: Path | None, work: Path) -> tuple[Form, OnnxFile | TorchFile]:
    if path.suffix == ".onnx":
        return "onnx", open_onnx(path, work / "given.onnx")
    if model_file is not None:
        return "state_dict", load_state_dict(path, model_file)
    if path.suffix == ".pt2":
        return "exported", load_exported(path)
    if path.suffix in (".pt", ".pth"):
        return "script", load_script(path)
    raise OperatorError(
        f"{path} is of no known kind; give an .onnx, .pt or .pt2 file, or a state dict with --model-file"
    )


def _declared(path: Path, shape: tuple[int | None, ...] | None) -> tuple[Layout, int | None, Size | None]:
    """Return layout, rows and size that a file says its model takes; None where it takes any, or does not say.

    Raises:
        OperatorError: They are not those of pictures, or of several pictures a call.
    """
    if shape is None:
        return "NCHW", None, None
    if len(shape) != 4:
        raise OperatorError(f"{path} takes an array of {len(shape)} axes; pictures have four")
    if (shape[1] == _NUM_CHANNELS) == (shape[3] == _NUM_CHANNELS):
        raise OperatorError(
            f"{path} takes pictures of shape {list(shape)}; three channels are needed as the second axis or the last"
        )
    if shape[0] not in (None, 1):
        raise OperatorError(f"{path} takes {shape[0]} pictures a call; export it with a dynamic batch, or with 1")
    layout: Layout = "NCHW" if shape[1] == _NUM_CHANNELS else "NHWC"
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return layout, shape[0], None if height is None or width is None else (height, width)


def _runs(run: Run, form: InputForm) -> bool:
    """Say whether a model that names no shape takes pictures of this layout."""
    try:
        run(form.values(np.zeros((*form.size, 3))))
    except Exception:  # noqa: BLE001  # what is wrong is said where the model is read
        return False
    return True


def _read_label_file(file: Path | None) -> tuple[str, ...] | None:
    """Read names of labels: a line each, or JSON: a list, or {"0": name or [id, name], ...}; None without a file.

    Raises:
        OperatorError: It cannot be read, or names none.
    """
    if file is None:
        return None
    if file.suffix != ".json":
        names = [line.strip() for line in read_lines(file)]
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


def _with_own_names(labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    """Number labels that share a name where answers have them as keys: ImageNet has two cranes, a bird and a machine."""
    if task != "image-classification":
        return labels
    seen: set[str] = set()
    names = []
    for index, label in enumerate(labels):
        names.append(f"{label} ({index})" if label in seen else label)
        seen.add(label)
    return tuple(names)
