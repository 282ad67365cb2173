"""Settings of transformers' image processors -> `Preprocessing`, by the rules of the class that a file names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ts_handlers.errors import ConfigError
from ts_handlers.imaging.preprocessing import Channels, Preprocessing, Resize
from ts_handlers.imaging.processors.classes import SETTINGS, Rule, find_class
from ts_handlers.imaging.processors.reader import BILINEAR, Reader
from ts_handlers.shapes import Size

_NO_PIXELS = (
    *("processor_class", "do_convert_rgb", "do_reduce_labels", "reduce_labels", "do_convert_annotations", "format"),
    *("return_tensors", "data_format", "input_data_format", "device", "disable_grouping", "auto_map", "antialias"),
    *("_valid_processor_keys", "_processor_class", "ignore_index", "return_segmentation_masks", "masks_path"),
    *("num_labels", "image_seq_length", "image_processor_type", "feature_extractor_type"),
    *("pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate"),
    *("keypoint_heatmap_downscale_factor", "keypoint_heatmap_sigma"),
)
"""Keys of transformers' processors that change nothing of what a model is fed."""

_CROPPED_BELOW = 384
"""ConvNeXT's processor crops images that are resized to less, and squeezes them otherwise."""

_LEVIT_FACTOR = 256 / 224
"""LeViT's processor resizes the shortest edge to so many times what its `size` says."""

_YOLOS_MULTIPLE = 16
"""Edges of YOLOS's pictures are cut to multiples of its patch."""


def from_transformers(values: Mapping[str, Any], name: str) -> Preprocessing:
    """Return what the class that a file names does with the file's settings.

    Args:
        values: Contents of the file.
        name: Of the file, for errors.

    Raises:
        ConfigError: It asks for what is not done here.
    """
    check_keys(values, name)
    kind = find_class(values, name)
    reader = Reader(kind.settings(values), name)
    scale, shift = _numbers(reader)
    resizes = reader.flag("do_resize")
    found = Preprocessing(
        None,
        reader.filter("resample") if resizes else BILINEAR,
        scale=scale,
        shift=shift,
        is_bgr=reader.flag("do_flip_channel_order"),
        antialias=kind.antialias,
        larger_below=kind.needs_torchvision,
    )
    if not kind.antialias and found.resample != BILINEAR:
        raise reader.error("resample", f"{BILINEAR}, bilinear: of this class no other filter is done here")
    if resizes:
        found = _RULES[kind.rule](found, reader)
    if kind.rule == "pp_lcnet":  # its mean and deviation are of blue, green and red, and applied to red, green and blue
        found = dataclasses.replace(found, is_bgr=True, scale=found.scale[::-1], shift=found.shift[::-1])
    return _with_padding(_with_crop(found, reader, kind.rule), reader, kind.rule)


def check_keys(values: Mapping[str, Any], name: str) -> None:
    """Refuse a setting that no class has, and that might change a pixel.

    Raises:
        ConfigError: There is one.
    """
    Reader(values, name).only(tuple(sorted(SETTINGS)), _NO_PIXELS)


def _with_crop(found: Preprocessing, reader: Reader, rule: Rule) -> Preprocessing:
    if not reader.flag("do_center_crop"):
        return found
    crop = _height_and_width(reader, "crop_size")
    if rule == "perceiver":
        size = _height_and_width(reader, "size")
        return dataclasses.replace(found, middle=(size[0] / crop[0], size[1] / crop[1]))
    if found.crop is not None and found.crop != crop:
        raise reader.error(
            "crop_size", f"{list(found.crop)}, or do_center_crop false: it is cropped to that size already"
        )
    return dataclasses.replace(found, crop=crop)


def _with_padding(found: Preprocessing, reader: Reader, rule: Rule) -> Preprocessing:
    if not reader.flag("do_pad"):
        return found
    if rule == "dpt":
        multiple = reader.values["size_divisor"]
        return (
            found
            if multiple is None
            else dataclasses.replace(found, pad_multiple=reader.edge(multiple, "size_divisor"))
        )
    if reader.values["pad_size"] is None:
        return dataclasses.replace(found, pads=True)
    return dataclasses.replace(found, pads=True, pad_size=_height_and_width(reader, "pad_size"))


def _numbers(reader: Reader) -> tuple[Channels, Channels]:
    """Fold rescaling and normalization into one factor and one summand for each channel."""
    rescales = reader.flag("do_rescale")
    factor = reader.number("rescale_factor") if rescales else 1.0
    offset = -1.0 if rescales and reader.flag("rescale_offset") else 0.0
    normalizes = reader.flag("do_normalize")
    mean = reader.channels("image_mean") if normalizes else (0.0, 0.0, 0.0)
    std = reader.channels("image_std", positive=True) if normalizes else (1.0, 1.0, 1.0)
    scale, shift = affine(factor, offset, mean, std)
    if not reader.flag("include_top"):
        return scale, shift
    again = reader.channels("image_std", positive=True)  # EfficientNet's divides by it once more, normalized or not
    scale = (scale[0] / again[0], scale[1] / again[1], scale[2] / again[2])
    return scale, (shift[0] / again[0], shift[1] / again[1], shift[2] / again[2])


def affine(factor: float, offset: float, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """Return scale and shift of (x * factor + offset - mean) / std."""
    scale = tuple(factor / each for each in std)
    shift = tuple((offset - middle) / each for middle, each in zip(mean, std, strict=True))
    return (scale[0], scale[1], scale[2]), (shift[0], shift[1], shift[2])


def _height_and_width(reader: Reader, key: str) -> Size:
    value = reader.values[key]
    if isinstance(value, Mapping):
        return reader.edge(value.get("height"), key), reader.edge(value.get("width"), key)
    if isinstance(value, list) and len(value) == 2:
        return reader.edge(value[0], key), reader.edge(value[1], key)
    edge = reader.edge(value, key)
    return edge, edge


def _sizes(reader: Reader) -> dict[str, int]:
    """Return `size` as transformers completes it: height and width, shortest_edge, ..."""
    size = reader.values["size"]
    if type(size) is int:
        edge = reader.edge(size, "size")
        longest = reader.values.get("max_size")
        if longest is not None:
            return {"shortest_edge": edge, "longest_edge": reader.edge(longest, "max_size")}
        return {"height": edge, "width": edge} if reader.flag("default_to_square") else {"shortest_edge": edge}
    if isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if not isinstance(size, Mapping):
        raise _size_error(reader, *_NAMES)
    return {key: reader.edge(value, "size") for key, value in size.items() if value is not None}


_NAMES = ("height and width", "shortest_edge", "shortest_edge and longest_edge", "max_height and max_width")


def _size_error(reader: Reader, *wanted: str) -> ConfigError:
    return reader.error("size", ", or ".join(wanted))


def _resize(reader: Reader, multiple: int = 1) -> Resize:
    sizes = _sizes(reader)
    keys = set(sizes)
    if keys == {"height", "width"}:
        return Resize("exact", sizes["height"], sizes["width"])
    if keys == {"shortest_edge"}:
        return Resize("shortest_edge", sizes["shortest_edge"])
    if keys == {"shortest_edge", "longest_edge"}:
        return Resize("bounded", sizes["shortest_edge"], sizes["longest_edge"], multiple)
    if keys == {"max_height", "max_width"}:
        return Resize("fit", sizes["max_height"], sizes["max_width"])
    raise _size_error(reader, *_NAMES)


def _plain(found: Preprocessing, reader: Reader) -> Preprocessing:
    return dataclasses.replace(found, resize=_resize(reader))


def _detr(found: Preprocessing, reader: Reader, multiple: int = 1) -> Preprocessing:
    resize = _resize(reader, multiple)
    if resize.mode == "shortest_edge":
        raise _size_error(reader, _NAMES[0], *_NAMES[2:])
    return dataclasses.replace(found, resize=resize)


def _yolos(found: Preprocessing, reader: Reader) -> Preprocessing:
    return _detr(found, reader, _YOLOS_MULTIPLE)


def _shortest_edge(reader: Reader) -> int:
    sizes = _sizes(reader)
    if "shortest_edge" not in sizes:
        raise _size_error(reader, "shortest_edge")
    return sizes["shortest_edge"]


def _convnext(found: Preprocessing, reader: Reader) -> Preprocessing:
    edge = _shortest_edge(reader)
    if edge >= _CROPPED_BELOW:
        return dataclasses.replace(found, resize=Resize("exact", edge, edge))
    resize = Resize("shortest_edge", int(edge / _crop_pct(reader)))
    return dataclasses.replace(found, resize=resize, crop=(edge, edge))


def _crop_pct(reader: Reader) -> float:
    crop_pct = reader.number("crop_pct")
    if not 0 < crop_pct <= 1:
        raise reader.error("crop_pct", "above 0 and up to 1")
    return crop_pct


def _edge_or_both(reader: Reader) -> Resize:
    sizes = _sizes(reader)
    if "shortest_edge" in sizes:
        return Resize("shortest_edge", sizes["shortest_edge"])
    if set(sizes) != {"height", "width"}:
        raise _size_error(reader, *_NAMES[:2])
    return Resize("exact", sizes["height"], sizes["width"])


def _levit(found: Preprocessing, reader: Reader) -> Preprocessing:
    resize = _edge_or_both(reader)
    if resize.mode == "shortest_edge":
        resize = Resize("shortest_edge", int(_LEVIT_FACTOR * resize.height))
    return dataclasses.replace(found, resize=resize)


def _poolformer(found: Preprocessing, reader: Reader) -> Preprocessing:
    if reader.values["crop_pct"] is None:
        return _plain(found, reader)
    resize, crop_pct = _edge_or_both(reader), _crop_pct(reader)
    height, width = int(resize.height / crop_pct), int(resize.width / crop_pct)
    keeps_shape = resize.mode == "shortest_edge" or resize.height == resize.width
    return dataclasses.replace(
        found, resize=Resize("shortest_edge", height) if keeps_shape else Resize("exact", height, width)
    )


def _dpt(found: Preprocessing, reader: Reader) -> Preprocessing:
    resize = _edge_or_both(reader)
    if resize.mode != "exact":
        raise _size_error(reader, _NAMES[0])
    multiple = reader.edge(reader.values["ensure_multiple_of"], "ensure_multiple_of")
    size = (resize.height, resize.width)
    if reader.flag("keep_aspect_ratio"):
        return dataclasses.replace(found, resize=Resize("nearest_edge", *size, multiple))
    if any(2 * edge % multiple == 0 and edge % multiple for edge in size):
        raise reader.error(
            "ensure_multiple_of", f"such that none of {list(size)} is halfway between two multiples of it"
        )
    height, width = (round(edge / multiple) * multiple for edge in size)
    return dataclasses.replace(found, resize=Resize("exact", height, width))


def _glpn(found: Preprocessing, reader: Reader) -> Preprocessing:
    return dataclasses.replace(found, resize=Resize("multiple", 0, 0, _divisor(reader)))


def _textnet(found: Preprocessing, reader: Reader) -> Preprocessing:
    return dataclasses.replace(found, resize=Resize("shortest_edge", _shortest_edge(reader), 0, _divisor(reader)))


def _pp_lcnet(found: Preprocessing, reader: Reader) -> Preprocessing:
    edge = reader.edge(reader.values["resize_short"], "resize_short")
    return dataclasses.replace(found, resize=Resize("rounded_edge", edge, 0, _divisor(reader)))


def _divisor(reader: Reader) -> int:
    return reader.edge(reader.values["size_divisor"], "size_divisor")


_RULES: Mapping[Rule, Callable[[Preprocessing, Reader], Preprocessing]] = {
    "plain": _plain,
    "detr": _detr,
    "yolos": _yolos,
    "convnext": _convnext,
    "levit": _levit,
    "poolformer": _poolformer,
    "dpt": _dpt,
    "glpn": _glpn,
    "textnet": _textnet,
    "perceiver": _plain,
    "pp_lcnet": _pp_lcnet,
}
