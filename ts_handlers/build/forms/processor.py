"""What a Hugging Face folder says of how its pictures are prepared, with all that the installed class says besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from ts_handlers.build.checkpoint import refuse_own_code
from ts_handlers.build.model_source import read_json
from ts_handlers.errors import ConfigError, OperatorError, first_line
from ts_handlers.preprocessing import Preprocessing
from ts_handlers.preprocessor_config import PREPROCESSOR_FILE, PROCESSOR_FILE, parse_preprocessing
from ts_handlers.processor_classes import class_name, find_class


def read_preprocessor(folder: Path, given: Path | None) -> tuple[Mapping[str, Any], Preprocessing]:
    """Read how pictures are prepared; of a Hugging Face folder with all that its processor's class says besides.

    Args:
        folder: The model's folder.
        given: A preprocessor_config.json of the command line, which goes before the folder's.

    Raises:
        OperatorError: There is none, or it asks for what is not done here.
    """
    if given is not None and not given.is_file():
        raise _none_there(given)
    values, name = (read_json(given), str(given)) if given is not None else _own_values(folder)
    try:
        return values, parse_preprocessing(values, name)
    except ConfigError as error:
        raise OperatorError(str(error)) from error


def _own_values(folder: Path) -> tuple[Mapping[str, Any], str]:
    """Return the settings of the folder's image processor, and the file that they are from.

    Raises:
        OperatorError: There are none, or their class needs code of its own, or is not known here.
    """
    files = [folder / name for name in (PREPROCESSOR_FILE, PROCESSOR_FILE) if (folder / name).is_file()]
    if not files:
        raise _none_there(folder / PREPROCESSOR_FILE)
    values = read_json(files[0])
    values = values.get("image_processor", values) if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not (folder / "config.json").is_file():
        return values, str(files[0])
    refuse_own_code(str(folder), folder, files[0].name, "image_processor_type")
    return {**values, **_class_settings(folder, values)}, str(files[0])


def _none_there(file: Path) -> OperatorError:
    return OperatorError(
        f"there is no {file}; it says how pictures are resized and normalized: give one with --preprocessor FILE"
    )


def _class_settings(folder: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return all settings of the installed class, its defaults included, so that no later one can change them."""
    if not class_name(values):
        return {}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # it needs torchvision, or is broken
        if find_class(values) is not None:
            return {}
        raise OperatorError(
            f"{folder} prepares pictures by {class_name(values)}, which cannot be loaded here ({first_line(error)}) and is "
            "not known: install what it needs, or describe what it does in a file for --preprocessor"
        ) from error
    found = json.loads(processor.to_json_string())
    return {
        **{key: value for key, value in found.items() if value is not None},
        "image_processor_type": class_name(found),
    }
