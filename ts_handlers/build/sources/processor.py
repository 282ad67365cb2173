"""How a source's pictures are prepared: the settings in its files, and all that the installed transformers says besides."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers

from ts_handlers.build.sources.checkpoint import refuse_own_code
from ts_handlers.build.sources.model import read_json
from ts_handlers.build.sources.preprocessing_check import compare, pixel_values
from ts_handlers.errors import ConfigError, OperatorError, all_lines
from ts_handlers.imaging.preprocessing import Preprocessing
from ts_handlers.imaging.processors.classes import class_name, find_class, heeded_settings, is_known
from ts_handlers.imaging.processors.preprocessor_config import (
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    parse_preprocessing,
    settings_section,
)
from ts_handlers.imaging.processors.settings import check_keys

_MODEL_FILE = "config.json"


class Preparation(NamedTuple):
    """How pictures are prepared.

    Attributes:
        values: Contents of the archive's preprocessor_config.json; of a class of transformers they name every setting.
        preprocessing: What they mean, compared with what transformers makes of the source's own file.
        processor: transformers' image processor of that file; None where there is none, or it cannot be loaded here.
        notes: What could not be compared, for the user.
    """

    values: Mapping[str, Any]
    preprocessing: Preprocessing
    processor: Any = None
    notes: tuple[str, ...] = ()


def read_preprocessor(folder: Path, given: Path | None) -> Preparation:
    """Read how pictures are prepared, with all that the class of the settings says besides.

    Args:
        folder: The model's folder.
        given: A file of the command line, which goes before the folder's.

    Raises:
        OperatorError: There is none, it asks for what is not done here, or transformers does otherwise.
    """
    file = given or _own_file(folder)
    if not file.is_file():
        raise OperatorError(
            f"there is no {file}; it says how pictures are resized and normalized: give one with --preprocessor FILE"
        )
    try:
        values = settings_section(read_json(file), str(file))
        if "input_size" in values or "resize_size" in values:
            return Preparation(values, parse_preprocessing(values, str(file)))
        model_file = folder / _MODEL_FILE
        return _by_its_class(values, str(file), model_file if given is None and model_file.is_file() else None)
    except ConfigError as error:
        raise OperatorError(str(error)) from error


def whole_numbers(path: Path, prepared: Preparation) -> Preparation:
    """Return how pictures are prepared for a model that takes levels from 0 to 255 as integers.

    Raises:
        OperatorError: Its settings make other numbers of them than levels, or levels divided by 255.
    """
    scale, shift = np.asarray(prepared.preprocessing.scale), np.asarray(prepared.preprocessing.shift)
    if (scale == 1).all() and (shift == 0).all():
        return prepared
    if np.allclose(scale, 1 / 255) and (shift == 0).all():
        note = (
            "the model takes whole numbers, so that pictures are fed as their levels, 0 to 255: do_rescale and do_normalize "
            "of preprocessor_config.json are set to false"
        )
        values = {**prepared.values, "do_rescale": False, "do_normalize": False}
        preprocessing = parse_preprocessing(values, PREPROCESSOR_FILE)
        return prepared._replace(values=values, preprocessing=preprocessing, notes=(*prepared.notes, note))
    low, high = shift.min(), (255 * scale + shift).max()
    raise OperatorError(
        f"{path} takes pictures as whole numbers, and preprocessor_config.json makes floats of them, from {low:.3g} to "
        f"{high:.3g}; set do_rescale and do_normalize to false there, if the model scales levels from 0 to 255 itself"
    )


def _by_its_class(values: Mapping[str, Any], name: str, model_file: Path | None) -> Preparation:
    """Return all settings by name, so that neither our table nor another release of transformers can change them.

    Raises:
        ConfigError: A setting or the class is not known, or does what is not done here.
        OperatorError: The class does otherwise than the settings say, or needs code of its own.
    """
    check_keys(values, name)
    if is_known(values):
        find_class(values, name)  # says what it does that is not done here
    if not class_name(values) and model_file is None:
        return Preparation(values, parse_preprocessing(values, name))
    try:
        processor = _installed_processor(values, model_file)
    except OperatorError:
        raise
    except Exception as error:  # noqa: BLE001  # it needs torchvision, or is broken
        return _by_the_table(values, name, error)
    found = json.loads(processor.to_json_string())
    named = {"image_processor_type": class_name({"image_processor_type": type(processor).__name__})}
    if not is_known(named):
        check_keys(found, f"{name} ({named['image_processor_type']})")
    keys = [key for key in heeded_settings(named) if hasattr(processor, key)]
    explicit = {**named, **{key: _off_if_none(key, found.get(key)) for key in keys}}
    preprocessing = parse_preprocessing(explicit, name)
    compare(preprocessing, lambda pixels: pixel_values(processor, pixels), type(processor).__name__)
    return Preparation(explicit, preprocessing, processor)


def _installed_processor(values: Mapping[str, Any], model_file: Path | None) -> Any:
    """Return transformers' image processor of some settings; the one that resizes with Pillow, where it has one.

    Args:
        values: The settings.
        model_file: A config.json, whose model says the class where the settings name none.

    Raises:
        OperatorError: Its class needs code of its own.
        Exception: Whatever transformers raises: there is no such class, or it needs torchvision.
    """
    is_old = int(transformers.__version__.split(".")[0]) < 5
    preferred: dict[str, Any] = {"use_fast": False} if is_old else {"backend": "pil"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / PREPROCESSOR_FILE).write_text(json.dumps(values), encoding="utf-8")
        if model_file is not None:
            shutil.copy(model_file, folder / _MODEL_FILE)
        refuse_own_code(str(model_file or "the file"), folder, PREPROCESSOR_FILE, "image_processor_type")
        return transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, **preferred)


def _by_the_table(values: Mapping[str, Any], name: str, error: Exception) -> Preparation:
    """Return the settings of a class that cannot be loaded here, as our table of transformers' classes has them."""
    named = class_name(values)
    if not is_known(values):
        is_gone = named and not hasattr(transformers, named)  # transformers' own text lists all classes
        reason = f"transformers {transformers.__version__} has none of that name" if is_gone else all_lines(error)
        raise ConfigError(
            f"{name}: {named or 'its class'} is not known here and cannot be loaded ({reason}); install what it needs, or "
            "describe what it does in a file for --preprocessor"
        ) from error
    explicit = {"image_processor_type": named, **find_class(values, name).settings(values)}
    preprocessing = parse_preprocessing(explicit, name)
    note = f"note: {named} cannot be loaded here, so that preprocessing was not compared with it: {all_lines(error)}"
    return Preparation(explicit, preprocessing, notes=(note,))


def _own_file(folder: Path) -> Path:
    """Return the file that transformers reads: a processor's section of images goes before a file of its own."""
    processor, model = folder / PROCESSOR_FILE, folder / _MODEL_FILE
    if processor.is_file() and "image_processor" in _mapping(read_json(processor)):
        return processor
    own = folder / PREPROCESSOR_FILE
    if not own.is_file() and model.is_file() and "pretrained_cfg" in _mapping(read_json(model)):
        return model  # of timm
    return own


def _mapping(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, Mapping) else {}


def _off_if_none(key: str, value: Any) -> Any:
    return False if value is None and key.startswith("do_") else value
