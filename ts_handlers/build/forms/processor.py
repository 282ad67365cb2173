"""How a source's pictures are prepared: the settings in its files, and all that the installed transformers says besides."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image

from ts_handlers.build.checkpoint import refuse_own_code
from ts_handlers.build.model_source import read_json
from ts_handlers.errors import ConfigError, OperatorError, first_line
from ts_handlers.preprocessing import Preprocessing
from ts_handlers.preprocessor_config import PREPROCESSOR_FILE, PROCESSOR_FILE, parse_preprocessing, settings_section
from ts_handlers.processor_classes import class_name, find_class, heeded_settings, is_known
from ts_handlers.processor_settings import check_keys

_MODEL_FILE = "config.json"

_PROBES = ((90, 200), (200, 90), (33, 47))
"""(height, width) of pictures that show whether settings say the same."""


def read_preprocessor(folder: Path, given: Path | None) -> tuple[Mapping[str, Any], Preprocessing]:
    """Read how pictures are prepared, with all that the class of the settings says besides.

    Args:
        folder: The model's folder.
        given: A file of the command line, which goes before the folder's.

    Returns:
        What an archive needs, which names every setting, and what that means.

    Raises:
        OperatorError: There is none, or it asks for what is not done here.
    """
    file = given or _own_file(folder)
    if not file.is_file():
        raise OperatorError(
            f"there is no {file}; it says how pictures are resized and normalized: give one with --preprocessor FILE"
        )
    values = read_json(file)
    try:
        found = settings_section(values, str(file))
        if "input_size" not in found and "resize_size" not in found:
            model_file = folder / _MODEL_FILE
            found = _explicit(found, str(file), model_file if given is None and model_file.is_file() else None)
        return found, parse_preprocessing(found, str(file))
    except ConfigError as error:
        raise OperatorError(str(error)) from error


def installed_processor(values: Mapping[str, Any], model_file: Path | None = None) -> Any:
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


def pixel_values(processor: Any, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what transformers' image processor makes of a picture.

    Raises:
        OperatorError: It makes something else, or cannot use its own settings.
    """
    name = type(processor).__name__
    try:
        found = processor(images=Image.fromarray(pixels), return_tensors="np")
    except Exception as error:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise OperatorError(
            f"{name} of transformers fails with these settings on a picture of {size} ({first_line(error)}); correct them"
        ) from error
    if "pixel_values" not in found:
        raise OperatorError(
            f"{name} makes {', '.join(found)} and no pixel_values; describe what it does in a file for --preprocessor that "
            "names no class, or let a handler of your own override transform"
        )
    return np.asarray(found["pixel_values"][0])


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


def _explicit(values: Mapping[str, Any], name: str, model_file: Path | None) -> Mapping[str, Any]:
    """Return all settings by name, so that neither our table nor another release of transformers can change them.

    Raises:
        ConfigError: A setting or the class is not known, or does what is not done here.
    """
    check_keys(values, name)
    if is_known(values):
        find_class(values, name)  # says what it does that is not done here
    if not class_name(values) and model_file is None:
        return values
    try:
        processor = installed_processor(values, model_file)
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
    parse_preprocessing(explicit, name)  # says best what is wrong with a setting
    _compare(processor, explicit, name)
    return explicit


def _compare(processor: Any, explicit: Mapping[str, Any], name: str) -> None:
    """See that a processor of the explicit settings does what that of the file does: pictures are compared with the former.

    Raises:
        OperatorError: It does not.
    """
    other = installed_processor(explicit)
    for number, size in enumerate(_PROBES):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        if not np.array_equal(pixel_values(processor, pixels), pixel_values(other, pixels)):
            raise OperatorError(
                f"{name}: {type(processor).__name__} heeds a setting that is not known here; its settings here are "
                f"{json.dumps(explicit)}: correct them to what it does, and give them with --preprocessor FILE"
            )


def _by_the_table(values: Mapping[str, Any], name: str, error: Exception) -> Mapping[str, Any]:
    if not is_known(values):
        named = class_name(values) or "its class"
        raise ConfigError(
            f"{name}: {named} is not known here and cannot be loaded ({_reason(values, error)}); install what it needs, or "
            "describe what it does in a file for --preprocessor"
        ) from error
    kind = find_class(values, name)
    return {"image_processor_type": class_name(values), **kind.settings(values)}


def _reason(values: Mapping[str, Any], error: Exception) -> str:
    """Say why a class was not loaded, without transformers' list of all classes."""
    named = class_name(values)
    if named and not hasattr(transformers, named):
        return f"transformers {transformers.__version__} has none of that name"
    return first_line(error)


def _off_if_none(key: str, value: Any) -> Any:
    return False if value is None and key.startswith("do_") else value
