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

from ts_handlers.errors import ConfigError
from ts_handlers.preprocessing import Channels, Preprocessing, Resize, Size
from ts_handlers.preprocessor_reader import BICUBIC, BILINEAR, Reader
from ts_handlers.processor_classes import ProcessorClass, class_name, find_class
from ts_handlers.reading import load_json

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
"""Where transformers 5 writes the settings of a whole processor, those of images as one of its sections."""

_CROPPED_BELOW = 384
"""ConvNeXT's processor crops images that are resized to less, and squeezes them otherwise."""


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
    """Understand the contents of a preprocessor_config.json, in any of the three forms.

    Raises:
        ConfigError: It asks for what is not done here.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} holds a {type(values).__name__}; it must be an object")
    if isinstance(values.get("pretrained_cfg"), Mapping):
        values = values["pretrained_cfg"]
    reader = Reader(values, name)
    if "input_size" in values:
        return _from_timm(reader)
    if "resize_size" in values:
        return _from_torchvision(reader)
    return _from_transformers(reader)


_TRANSFORMERS_KEYS = (
    *(
        "do_resize",
        "size",
        "max_size",
        "resample",
        "crop_pct",
        "do_center_crop",
        "crop_size",
        "do_rescale",
        "rescale_factor",
    ),
    *("rescale_offset", "do_normalize", "image_mean", "image_std", "include_top", "do_flip_channel_order", "do_pad"),
    *("pad_size", "size_divisor", "image_processor_type", "feature_extractor_type"),
    *("keep_aspect_ratio", "ensure_multiple_of"),
)
_NO_PIXELS = (
    *("processor_class", "do_convert_rgb", "do_reduce_labels", "reduce_labels", "do_convert_annotations", "format"),
    *(
        "return_tensors",
        "data_format",
        "input_data_format",
        "device",
        "disable_grouping",
        "default_to_square",
        "auto_map",
    ),
    *("_valid_processor_keys", "_processor_class", "ignore_index", "return_segmentation_masks", "masks_path"),
    *("num_labels", "antialias"),
)
"""Keys of transformers' processors that change nothing of what a model is fed."""

_LONGEST_EDGE = 1333
"""Longest edge of DETR's pictures, where `size` is a single number."""


def _from_transformers(reader: Reader) -> Preprocessing:
    kind = find_class(reader.values)
    if kind is not None and kind.unlike:
        raise ConfigError(
            f"{reader.name}: {class_name(reader.values)} {kind.unlike}, which is not done here; write a handler of your own "
            "that overrides transform"
        )
    reader.only(_TRANSFORMERS_KEYS, _NO_PIXELS)
    if kind is not None:
        reader = Reader(kind.settings(reader.values), reader.name)
    kind = kind or ProcessorClass()
    _refuse_padding(reader)
    scale, shift = _transformers_numbers(reader)
    resize: Resize | None = None
    crop: Size | None = None
    if reader.flag("do_resize", default=True):
        resize, crop = _transformers_resize(reader, kind)
    if reader.flag("do_center_crop", default=False):
        crop = _height_and_width(reader, "crop_size")
    return Preprocessing(
        resize,
        reader.filter("resample", BILINEAR),
        crop,
        scale=scale,
        shift=shift,
        is_bgr=reader.flag("do_flip_channel_order", default=False),
        pads=reader.flag("do_pad", default=False),
    )


def _refuse_padding(reader: Reader) -> None:
    """Refuse what would put a border around pictures; TextNet's size_divisor rounds their size up instead."""
    is_textnet = class_name(reader.values).startswith("TextNet")
    for key in ("pad_size", *(() if is_textnet else ("size_divisor",))):
        if reader.values.get(key):
            raise ConfigError(
                f"{reader.name}: {key} is {reader.values[key]!r}; padding to a fixed size is not done here: resize to it"
            )


def _transformers_resize(reader: Reader, kind: ProcessorClass) -> tuple[Resize, Size | None]:
    """Return how large a picture is made, and what is cut out of it where the class crops by crop_pct."""
    resize = _transformers_size(reader, kind)
    if resize.mode == "shortest_edge":
        multiple = reader.edge(reader.values.get("size_divisor") or 1, "size_divisor")
        resize = Resize("shortest_edge", int(kind.edge_factor * resize.height), multiple=multiple)
    if reader.values.get("ensure_multiple_of") or reader.flag("keep_aspect_ratio", default=False):
        multiple = reader.edge(reader.values.get("ensure_multiple_of") or 1, "ensure_multiple_of")
        if resize.mode != "exact":
            raise reader.error("size", "height and width")
        if reader.flag("keep_aspect_ratio", default=False):
            return Resize("nearest_edge", resize.height, resize.width, multiple), None
        height, width = (round(edge / multiple) * multiple for edge in (resize.height, resize.width))
        return Resize("exact", height, width), None
    if "crop_pct" not in reader.values:
        return resize, None
    crop_pct = reader.number("crop_pct", 1.0)
    if not 0 < crop_pct <= 1:
        raise reader.error("crop_pct", "above 0 and up to 1")
    if kind.crop == "convnext":
        return _convnext(resize.height, crop_pct)
    if kind.crop != "poolformer":
        name = class_name(reader.values) or "an unnamed processor"
        raise ConfigError(f"{reader.name}: crop_pct of {name} is not known; ConvNext's and PoolFormer's are")
    if resize.mode == "exact" and resize.height != resize.width:
        return Resize("exact", int(resize.height / crop_pct), int(resize.width / crop_pct)), None
    return Resize("shortest_edge", int(resize.height / crop_pct)), None


def _transformers_numbers(reader: Reader) -> tuple[Channels, Channels]:
    """Fold rescaling and normalization into one factor and one summand for each channel."""
    rescales = reader.flag("do_rescale", default=True)
    factor = reader.number("rescale_factor", 1 / 255) if rescales else 1.0
    offset = -1.0 if rescales and reader.flag("rescale_offset", default=False) else 0.0
    normalizes = reader.flag("do_normalize", default=True)
    mean = reader.channels("image_mean") if normalizes else (0.0, 0.0, 0.0)
    std = reader.channels("image_std", positive=True) if normalizes else (1.0, 1.0, 1.0)
    scale, shift = _affine(factor, offset, mean, std)
    if not reader.flag("include_top", default=False):
        return scale, shift
    again = reader.channels("image_std", positive=True)  # EfficientNet's divides by it once more, normalized or not
    scale = (scale[0] / again[0], scale[1] / again[1], scale[2] / again[2])
    return scale, (shift[0] / again[0], shift[1] / again[1], shift[2] / again[2])


def _affine(factor: float, offset: float, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """Return scale and shift of (x * factor + offset - mean) / std."""
    scale = tuple(factor / each for each in std)
    shift = tuple((offset - middle) / each for middle, each in zip(mean, std, strict=True))
    return (scale[0], scale[1], scale[2]), (shift[0], shift[1], shift[2])


def _transformers_size(reader: Reader, kind: ProcessorClass) -> Resize:
    size = reader.values.get("size")
    if type(size) is int:
        longest = reader.values.get("max_size", _LONGEST_EDGE if kind.int_size == "bounded" else None)
        if longest is not None:
            edges = reader.edge(size, "size"), reader.edge(longest, "max_size")
            return Resize("bounded", *edges, kind.multiple)
        if kind.int_size == "shortest_edge":
            return Resize("shortest_edge", reader.edge(size, "size"))
        return Resize("exact", reader.edge(size, "size"), size)
    if isinstance(size, list) and len(size) == 2:
        return Resize("exact", reader.edge(size[0], "size"), reader.edge(size[1], "size"))
    keys = {key: value for key, value in size.items() if value is not None} if isinstance(size, Mapping) else {}
    found = {key: reader.edge(value, "size") for key, value in keys.items()}
    if set(found) == {"height", "width"}:
        return Resize("exact", found["height"], found["width"])
    if set(found) == {"shortest_edge"}:
        return Resize("shortest_edge", found["shortest_edge"])
    if set(found) == {"shortest_edge", "longest_edge"}:
        return Resize("bounded", found["shortest_edge"], found["longest_edge"], kind.multiple)
    if set(found) == {"max_height", "max_width"}:
        return Resize("fit", found["max_height"], found["max_width"])
    raise reader.error("size", "height and width, shortest_edge (and longest_edge), or max_height and max_width")


def _height_and_width(reader: Reader, key: str) -> Size:
    value = reader.values.get(key)
    if isinstance(value, Mapping):
        return reader.edge(value.get("height"), key), reader.edge(value.get("width"), key)
    if isinstance(value, list) and len(value) == 2:
        return reader.edge(value[0], key), reader.edge(value[1], key)
    edge = reader.edge(value, key)
    return edge, edge


def _convnext(edge: int, crop_pct: float) -> tuple[Resize, Size | None]:
    if edge >= _CROPPED_BELOW:
        return Resize("exact", edge, edge), None
    return Resize("shortest_edge", int(edge / crop_pct)), (edge, edge)


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
    scale, shift = _affine(1 / 255, 0.0, reader.channels("mean"), reader.channels("std", positive=True))
    resample = reader.filter("interpolation", BICUBIC)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, scale=scale, shift=shift)


def _from_torchvision(reader: Reader) -> Preprocessing:
    reader.only(("resize_size", "crop_size", "mean", "std", "interpolation"), ("antialias",))
    resize = Resize("shortest_edge", reader.square("resize_size"))
    edge = reader.square("crop_size")
    scale, shift = _affine(1 / 255, 0.0, reader.channels("mean"), reader.channels("std", positive=True))
    resample = reader.filter("interpolation", BILINEAR)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, scale=scale, shift=shift)
