"""preprocessor_config.json -> `Preprocessing`: how pictures become what a model was trained on.

Read are transformers' image processors, timm's data configuration (input_size, crop_pct ...) and the arguments of
torchvision's presets (resize_size, crop_size ...). Strict: a key that could change a pixel and is not known stops the model
from loading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ts_handlers.errors import ConfigError
from ts_handlers.preprocessing import Channels, Preprocessing, Resize, Size

PREPROCESSOR_FILE = "preprocessor_config.json"

_BILINEAR, _BICUBIC = 2, 3
_FILTERS: Mapping[str, int] = {
    "nearest": 0,
    "lanczos": 1,
    "bilinear": _BILINEAR,
    "bicubic": _BICUBIC,
    "box": 4,
    "hamming": 5,
}
"""Names of timm and torchvision -> Pillow's numbers, which transformers writes."""

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
        values = json.loads(file.read_text(encoding="utf-8"))
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
    reader = _Reader(values, name)
    if "input_size" in values:
        return _from_timm(reader)
    if "resize_size" in values:
        return _from_torchvision(reader)
    return _from_transformers(reader)


class _Reader:
    """Reads keys of a mapping with their types, and remembers where they are for the errors."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self.values, self.name = values, name

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, "a number")
        return float(value)

    def channels(self, key: str, *, positive: bool = False) -> Channels:
        value = self.values.get(key)
        items: list[Any] = value if isinstance(value, list) else [value] * 3
        if len(items) != 3 or not all(type(item) in (int, float) and math.isfinite(item) for item in items):
            raise self.error(key, "three numbers, one for each of red, green and blue")
        if positive and min(items) <= 0:
            raise self.error(key, "three numbers above 0")
        return float(items[0]), float(items[1]), float(items[2])

    def edge(self, value: Any, key: str) -> int:
        if type(value) is not int or not 0 < value < 65536:
            raise self.error(key, "sizes in pixels, above 0")
        return value

    def square(self, key: str) -> int:
        """Read an edge that is written as a number, as [number], or as two equal ones."""
        value = self.values.get(key)
        items = value if isinstance(value, list) else [value]
        if len(items) not in (1, 2) or len(set(map(str, items))) != 1:
            raise self.error(key, "one size in pixels")
        return self.edge(items[0], key)

    def filter(self, key: str, default: int) -> int:
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.lower() in _FILTERS:
            return _FILTERS[value.lower()]
        if type(value) is not int or value not in _FILTERS.values():
            raise self.error(key, f"one of 0 to 5, or of {', '.join(_FILTERS)}")
        return value

    def only(self, known: Sequence[str], ignored: Sequence[str]) -> None:
        for key in self.values:
            if key not in known and key not in ignored:
                raise ConfigError(
                    f"{self.name}: {key} is not known, and pictures might come out otherwise than the model was trained on; "
                    f"remove it if it changes no pixel. Known: {', '.join(known)}"
                )

    def error(self, key: str, wanted: str) -> ConfigError:
        return ConfigError(f"{self.name}: {key} is {self.values.get(key)!r}; it must be {wanted}")


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

_SHORTEST_EDGE_TYPES = ("CLIP", "ConvNext", "LeViT", "Levit", "Poolformer", "Detr", "Yolos", "ConditionalDetr", "Bit")
"""Processors whose `size` as a single number is the shortest edge; a square elsewhere."""

_NEVER_NORMALIZED = ("MobileViT", "MobileVit")
"""Processors that have a mean and do not use it."""

_YOLOS_MULTIPLE = 16
"""Edges of YOLOS's pictures are cut to multiples of its patch."""


def _from_transformers(reader: _Reader) -> Preprocessing:
    reader.only(_TRANSFORMERS_KEYS, _NO_PIXELS)
    values = reader.values
    if values.get("pad_size") or values.get("size_divisor"):
        key = "pad_size" if values.get("pad_size") else "size_divisor"
        raise ConfigError(
            f"{reader.name}: {key} is {values[key]!r}; padding to a fixed size is not done here: resize to it"
        )
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    scale, shift = _transformers_numbers(reader, normalizes_by_default=not kind.startswith(_NEVER_NORMALIZED))
    resize: Resize | None = None
    crop: Size | None = None
    if reader.flag("do_resize", default=True):
        resize = _transformers_size(reader, kind)
        if "crop_pct" in values and kind.startswith("ConvNext"):
            resize, crop = _convnext(resize.height, reader.number("crop_pct", 224 / 256))
        elif "crop_pct" in values:
            raise ConfigError(
                f"{reader.name}: crop_pct of {kind or 'an unnamed processor'} is not known; only ConvNext's is"
            )
    if reader.flag("do_center_crop", default=False):
        crop = _height_and_width(reader, "crop_size")
    return Preprocessing(
        resize,
        reader.filter("resample", _BILINEAR),
        crop,
        scale=scale,
        shift=shift,
        is_bgr=reader.flag("do_flip_channel_order", default=False),
        pads=reader.flag("do_pad", default=False),
    )


def _transformers_numbers(reader: _Reader, *, normalizes_by_default: bool) -> tuple[Channels, Channels]:
    """Fold rescaling and normalization into one factor and one summand for each channel."""
    rescales = reader.flag("do_rescale", default=True)
    factor = reader.number("rescale_factor", 1 / 255) if rescales else 1.0
    offset = -1.0 if rescales and reader.flag("rescale_offset", default=False) else 0.0
    normalizes = reader.flag("do_normalize", default=normalizes_by_default)
    mean = reader.channels("image_mean") if normalizes else (0.0, 0.0, 0.0)
    std = reader.channels("image_std", positive=True) if normalizes else (1.0, 1.0, 1.0)
    if normalizes and reader.flag("include_top", default=False):
        std = std[0] ** 2, std[1] ** 2, std[2] ** 2  # EfficientNet's divides by it twice
    return _affine(factor, offset, mean, std)


def _affine(factor: float, offset: float, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """Return scale and shift of (x * factor + offset - mean) / std."""
    scale = tuple(factor / each for each in std)
    shift = tuple((offset - middle) / each for middle, each in zip(mean, std, strict=True))
    return (scale[0], scale[1], scale[2]), (shift[0], shift[1], shift[2])


def _transformers_size(reader: _Reader, kind: str) -> Resize:
    size = reader.values.get("size")
    if type(size) is int:
        longest = reader.values.get("max_size")
        if longest is not None:
            return Resize("bounded", reader.edge(size, "size"), reader.edge(longest, "max_size"))
        if kind.startswith(_SHORTEST_EDGE_TYPES):
            return Resize("shortest_edge", reader.edge(size, "size"))
        return Resize("exact", reader.edge(size, "size"), size)
    keys = {key: value for key, value in size.items() if value is not None} if isinstance(size, Mapping) else {}
    edges = {key: reader.edge(value, "size") for key, value in keys.items()}
    if set(edges) == {"height", "width"}:
        return Resize("exact", edges["height"], edges["width"])
    if set(edges) == {"shortest_edge"}:
        return Resize("shortest_edge", edges["shortest_edge"])
    if set(edges) == {"shortest_edge", "longest_edge"}:
        multiple = _YOLOS_MULTIPLE if kind.startswith("Yolos") else 1
        return Resize("bounded", edges["shortest_edge"], edges["longest_edge"], multiple)
    if set(edges) == {"max_height", "max_width"}:
        return Resize("fit", edges["max_height"], edges["max_width"])
    raise reader.error("size", "height and width, shortest_edge (and longest_edge), or max_height and max_width")


def _height_and_width(reader: _Reader, key: str) -> Size:
    value = reader.values.get(key)
    if isinstance(value, Mapping):
        return reader.edge(value.get("height"), key), reader.edge(value.get("width"), key)
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


def _from_timm(reader: _Reader) -> Preprocessing:
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
    resample = reader.filter("interpolation", _BICUBIC)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, scale=scale, shift=shift)


def _from_torchvision(reader: _Reader) -> Preprocessing:
    reader.only(("resize_size", "crop_size", "mean", "std", "interpolation"), ("antialias",))
    resize = Resize("shortest_edge", reader.square("resize_size"))
    edge = reader.square("crop_size")
    scale, shift = _affine(1 / 255, 0.0, reader.channels("mean"), reader.channels("std", positive=True))
    resample = reader.filter("interpolation", _BILINEAR)
    return Preprocessing(resize, resample, (edge, edge), rounds_crop=True, scale=scale, shift=shift)
