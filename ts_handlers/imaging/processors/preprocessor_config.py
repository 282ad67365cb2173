"""preprocessor_config.json -> `Preprocessing`: how pictures become what a model was trained on.

Read are transformers' image processors, timm's data configuration (input_size, crop_pct ...) and the arguments of
torchvision's presets (resize_size, crop_size ...). Strict: a key that could change a pixel and is not known stops the model
from loading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ts_handlers.config.reading import load_json
from ts_handlers.errors import ConfigError
from ts_handlers.imaging.preprocessing import Preprocessing, Resize
from ts_handlers.imaging.processors.reader import BICUBIC, BILINEAR, Reader
from ts_handlers.imaging.processors.settings import affine, from_transformers

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
"""Where transformers 5 writes the settings of a whole processor, those of images as one of its sections."""


def read_preprocessing(file: Path) -> Preprocessing:
    """Read a preprocessor_config.json.

    Raises:
        ConfigError: It is missing, no JSON, or asks for what is not done here.
    """
    if not file.is_file():
        raise ConfigError(
            f"{file.name} is not in the archive; it says how pictures are resized and normalized: add the model's own"
        )
    try:
        values = load_json(file, any_number=True)
    except ValueError as error:
        raise ConfigError(f"{file.name} is no JSON: {error}") from error
    return parse_preprocessing(values, file.name)


def parse_preprocessing(values: Any, name: str) -> Preprocessing:
    """Understand the contents of a preprocessor_config.json, in any of the three forms, or of a processor_config.json.

    Raises:
        ConfigError: It asks for what is not done here.
    """
    values = settings_section(values, name)
    reader = Reader(values, name)
    if "input_size" in values:
        return _from_timm(reader)
    if "resize_size" in values:
        return _from_torchvision(reader)
    return from_transformers(values, name)


def settings_section(values: Any, name: str) -> Mapping[str, Any]:
    """Return the settings of pictures in a file's contents: those of a processor, or of timm, are a section of them.

    Raises:
        ConfigError: It holds no object.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} holds a {type(values).__name__}; it must be an object")
    found: Mapping[str, Any] = values
    for section in ("image_processor", "pretrained_cfg"):
        if isinstance(found.get(section), Mapping):
            found = found[section]
    return found


_TIMM_KEYS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
_TIMM_IGNORED = (
    *("url", "hf_hub_id", "hf_hub_filename", "file", "source", "architecture", "tag", "custom_load", "num_classes"),
    *(
        "fixed_input_size",
        "pool_size",
        "first_conv",
        "classifier",
        "min_input_size",
        "test_input_size",
        "test_crop_pct",
    ),
    *("license", "origin_url", "paper_name", "paper_ids", "notes", "label_names", "label_descriptions"),
)


def _from_timm(reader: Reader) -> Preprocessing:
    reader.only(_TIMM_KEYS, _TIMM_IGNORED)
    size = reader.values["input_size"]
    if not isinstance(size, list) or len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        raise reader.error("input_size", "[3, edge, edge]: a square of three channels")
    edge = reader.edge(size[1], "input_size")
    crop_pct = reader.number("crop_pct", 0.875)
    if not 0 < crop_pct <= 1:
        raise reader.error("crop_pct", "above 0 and up to 1")
    before = math.floor(edge / crop_pct)
    mode = reader.values.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise reader.error("crop_mode", "center or squash")
    resize = Resize("shortest_edge", before) if mode == "center" else Resize("exact", before, before)
    scale, shift = affine(1 / 255, 0.0, reader.channels("mean"), reader.channels("std", positive=True))
    resample = reader.filter("interpolation", BICUBIC)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, larger_below=True, scale=scale, shift=shift)


def _from_torchvision(reader: Reader) -> Preprocessing:
    reader.only(("resize_size", "crop_size", "mean", "std", "interpolation"), ("antialias",))
    resize = Resize("shortest_edge", reader.square("resize_size"))
    edge = reader.square("crop_size")
    scale, shift = affine(1 / 255, 0.0, reader.channels("mean"), reader.channels("std", positive=True))
    resample = reader.filter("interpolation", BILINEAR)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, larger_below=True, scale=scale, shift=shift)
