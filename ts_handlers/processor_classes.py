"""What transformers' image processors do that their preprocessor_config.json need not say: defaults and rules by class.

Of transformers 5.24. A build compares with the installed class, and writes the defaults out; the table is for files that
were written by hand, or by an older transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_STANDARD = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_BICUBIC = {"resample": 3}
_BGR = {"do_flip_channel_order": True, "do_normalize": False}

_OF_SOME = ("do_flip_channel_order", "rescale_offset", "include_top", "keep_aspect_ratio", "ensure_multiple_of")
"""Settings that some classes have and all others ignore."""

_SUFFIX = re.compile(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")


@dataclass(frozen=True, slots=True)
class ProcessorClass:
    """What one class does.

    Attributes:
        defaults: Settings that a file may leave out.
        int_size: What `size` as a single number is: both edges, the shortest one, or the shortest one with the longest
            bounded by 1333.
        multiple: Edges are cut to a multiple of it.
        edge_factor: The shortest edge is so many times what `size` says.
        crop: Whether crop_pct enlarges what is resized: as ConvNeXT has it (crops at the size itself, below 384) or as
            PoolFormer has it (crops at crop_size).
        center_crops: Whether it heeds do_center_crop.
        unlike: What it does that is not done here; a model of it is refused.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    int_size: Literal["square", "shortest_edge", "bounded"] = "square"
    multiple: int = 1
    edge_factor: float = 1.0
    crop: Literal["convnext", "poolformer"] | None = None
    center_crops: bool = True
    unlike: str = ""

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a file's settings with the defaults, and without what other classes alone heed."""
        given = {key: value for key, value in values.items() if value is not None}
        ignored = {key for key in _OF_SOME if key not in self.defaults}
        if not self.center_crops:
            ignored.add("do_center_crop")
        return {**self.defaults, **{key: value for key, value in given.items() if key not in ignored}}


def _square(edge: int) -> dict[str, Any]:
    return {"size": {"height": edge, "width": edge}}


def _shortest(edge: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": edge}}


def _cropped(edge: int) -> dict[str, Any]:
    return {"do_center_crop": True, "crop_size": {"height": edge, "width": edge}}


_DETR = ProcessorClass(
    {"size": {"shortest_edge": 800, "longest_edge": 1333}, "do_pad": True, **_IMAGENET},
    int_size="bounded",
    center_crops=False,
)
_CLIP_CLASS = ProcessorClass({**_shortest(224), **_cropped(224), **_BICUBIC, **_CLIP}, int_size="shortest_edge")
_MOBILENET = ProcessorClass({**_shortest(256), **_cropped(224), **_STANDARD}, int_size="shortest_edge")

CLASSES: Mapping[str, ProcessorClass] = {
    "beit": ProcessorClass({**_square(224), **_BICUBIC, **_STANDARD, "crop_size": 224}),
    "bit": _CLIP_CLASS,
    "chineseclip": _CLIP_CLASS,
    "clip": _CLIP_CLASS,
    "conditionaldetr": _DETR,
    "convnext": ProcessorClass(
        {**_shortest(384), **_BICUBIC, **_STANDARD, "crop_pct": 224 / 256}, int_size="shortest_edge", crop="convnext"
    ),
    "deformabledetr": _DETR,
    "deit": ProcessorClass({**_square(256), **_cropped(224), **_BICUBIC, **_STANDARD}),
    "detr": _DETR,
    "dpt": ProcessorClass(
        {**_square(384), **_BICUBIC, **_STANDARD, "keep_aspect_ratio": False, "ensure_multiple_of": 1},
        center_crops=False,
    ),
    "efficientnet": ProcessorClass(
        {**_square(346), "crop_size": 289, **_BICUBIC, **_STANDARD, "rescale_offset": False, "include_top": True}
    ),
    "gemma3": ProcessorClass({**_square(224), **_STANDARD}, center_crops=False),
    "imagegpt": ProcessorClass(unlike="replaces pixels by clusters of colours"),
    "levit": ProcessorClass(
        {**_shortest(224), **_cropped(224), **_BICUBIC, **_IMAGENET}, int_size="shortest_edge", edge_factor=256 / 224
    ),
    "mobilenetv1": _MOBILENET,
    "mobilenetv2": _MOBILENET,
    "mobilevit": ProcessorClass({**_shortest(224), **_cropped(256), **_BICUBIC, **_BGR}, int_size="shortest_edge"),
    "perceiver": ProcessorClass(unlike="crops before it resizes"),
    "poolformer": ProcessorClass(
        {**_shortest(224), **_cropped(224), **_BICUBIC, **_IMAGENET, "crop_pct": 0.9},
        int_size="shortest_edge",
        crop="poolformer",
    ),
    "pvt": ProcessorClass({**_square(224), **_BICUBIC, **_IMAGENET}),
    "rtdetr": ProcessorClass({**_square(640), "do_normalize": False, "do_pad": False, **_IMAGENET}, center_crops=False),
    "segformer": ProcessorClass({**_square(512), **_IMAGENET}, center_crops=False),
    "siglip": ProcessorClass({**_square(224), **_BICUBIC, **_STANDARD}),
    "siglip2": ProcessorClass(unlike="cuts pictures into patches"),
    "textnet": ProcessorClass(
        {**_shortest(640), "crop_size": 224, "size_divisor": 32, **_IMAGENET}, int_size="shortest_edge"
    ),
    "vit": ProcessorClass({**_square(224), **_STANDARD}),
    "yolos": ProcessorClass(_DETR.defaults, int_size="bounded", multiple=16, center_crops=False),
}
"""Name of the class in small letters, without what all of them end in -> what it does."""


def class_name(values: Mapping[str, Any]) -> str:
    """Return the name of the class that a file names, without `Fast` or `Pil`; "" where it names none."""
    return re.sub(
        r"(Fast|Pil)$", "", str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    )


def find_class(values: Mapping[str, Any]) -> ProcessorClass | None:
    """Return the class that a preprocessor_config.json names; None where it names none, or one that is not known."""
    return CLASSES.get(_SUFFIX.sub("", class_name(values)).lower())
