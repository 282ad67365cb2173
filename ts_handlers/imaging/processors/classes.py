"""What transformers' image processors do that their preprocessor_config.json need not say: defaults and rules by class.

Of transformers 5.24. A build writes out the defaults of the installed class and compares with it; the table is for files
that were written by hand or by another release, and for the rules that no setting says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ts_handlers.errors import ConfigError

Rule = Literal[
    "plain", "detr", "yolos", "convnext", "levit", "poolformer", "dpt", "glpn", "textnet", "perceiver", "pp_lcnet"
]
"""How a class makes a size of its settings; `processor_settings` has each."""

_PIPELINE: Mapping[str, Any] = {
    "do_resize": True,
    "size": None,
    "default_to_square": True,
    "resample": 2,
    "do_center_crop": None,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": None,
    "image_std": None,
    "do_pad": None,
    "pad_size": None,
}
"""What all classes have, but for what they set otherwise or never heed."""

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_STANDARD = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_BICUBIC = {"resample": 3}
_NO_CROP = frozenset({"do_center_crop"})
_NO_PAD = frozenset({"do_pad"})
_NEITHER = _NO_CROP | _NO_PAD

_SUFFIX = re.compile(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")


@dataclass(frozen=True, slots=True)
class ProcessorClass:
    """What one class does.

    Attributes:
        defaults: Settings that a file may leave out, where they are not those of all classes. A setting that is neither
            here nor one of all classes is another class's, and ignored.
        rule: How it makes a size of its settings.
        never: Settings that all classes have and this one does not heed.
        antialias: Whether what is made smaller is averaged.
        needs_torchvision: Whether transformers has it with torchvision alone, and not with Pillow.
        old_names: Settings of older releases -> their names.
        off: Settings that must be off, and what they would do, which is not done here.
        unlike: What it does that is not done here; a model of it is refused.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    rule: Rule = "plain"
    never: frozenset[str] = frozenset()
    antialias: bool = True
    needs_torchvision: bool = False
    old_names: Mapping[str, str] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    unlike: str = ""

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings that it heeds: a file's, and the defaults of those that the file does not name.

        A null is a value too: it turns off what is on by default.
        """
        found = {**_PIPELINE, **self.defaults}
        named = {new: values[old] for old, new in self.old_names.items() if old in values} | dict(values)
        found.update((key, value) for key, value in named.items() if key in found)
        return {key: value for key, value in found.items() if key not in self.never}


def _square(edge: int) -> dict[str, Any]:
    return {"size": {"height": edge, "width": edge}}


def _shortest(edge: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": edge}, "default_to_square": False}


def _cropped(edge: int, *, crops: bool = True) -> dict[str, Any]:
    return {"do_center_crop": crops, "crop_size": {"height": edge, "width": edge}}


_DETR_DEFAULTS = {
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "max_size": 1333,
    "default_to_square": False,
    "do_pad": True,
    **_IMAGENET,
}
_OLD_NAMES = {"pad_and_return_pixel_mask": "do_pad"}
_DETR = ProcessorClass(_DETR_DEFAULTS, "detr", _NO_CROP, old_names=_OLD_NAMES)
_CLIP_CLASS = ProcessorClass({**_shortest(224), **_cropped(224), **_BICUBIC, **_CLIP})
_MOBILENET = {**_shortest(256), **_cropped(224), **_STANDARD}
_OPENCV = ProcessorClass(unlike="resizes without averaging by a bicubic filter of its own")
_TEXT_LINES = ProcessorClass(unlike="resizes by rules for lines of text")

UNNAMED = ProcessorClass(
    {
        "max_size": None,
        "do_flip_channel_order": False,
        "rescale_offset": False,
        "include_top": False,
    }
)
"""What a file that names no class gets: the settings that it has, by the rules of most classes."""

CLASSES: Mapping[str, ProcessorClass] = {
    "beit": ProcessorClass({**_square(224), **_cropped(224, crops=False), **_BICUBIC, **_STANDARD}, never=_NO_PAD),
    "bit": _CLIP_CLASS,
    "chineseclip": _CLIP_CLASS,
    "clip": _CLIP_CLASS,
    "conditionaldetr": _DETR,
    "convnext": ProcessorClass(
        {**_shortest(384), **_BICUBIC, **_STANDARD, "crop_pct": 224 / 256}, "convnext", never=_NO_PAD
    ),
    "deformabledetr": _DETR,
    "deit": ProcessorClass({**_square(256), **_cropped(224), **_BICUBIC, **_STANDARD}),
    "detr": _DETR,
    "donut": ProcessorClass(unlike="makes thumbnails with a border around them"),
    "dpt": ProcessorClass(
        {
            **_square(384),
            **_BICUBIC,
            **_STANDARD,
            "keep_aspect_ratio": False,
            "ensure_multiple_of": 1,
            "size_divisor": None,
        },
        "dpt",
        _NO_CROP,
    ),
    "efficientnet": ProcessorClass(
        {
            **_square(346),
            **_cropped(289, crops=False),
            **_BICUBIC,
            **_STANDARD,
            "rescale_offset": False,
            "include_top": True,
        },
        never=_NO_PAD,
    ),
    "gemma3": ProcessorClass(
        {**_square(224), **_STANDARD, "do_pan_and_scan": None},
        never=_NEITHER,
        off={"do_pan_and_scan": "cuts a picture into several"},
    ),
    "glpn": ProcessorClass({"do_normalize": None, "size_divisor": 32}, "glpn", _NEITHER),
    "imagegpt": ProcessorClass(unlike="replaces pixels by clusters of colours"),
    "levit": ProcessorClass({**_shortest(224), **_cropped(224), **_BICUBIC, **_IMAGENET}, "levit"),
    "mobilenetv1": ProcessorClass(_MOBILENET),
    "mobilenetv2": ProcessorClass(_MOBILENET, never=_NO_PAD),
    "mobilevit": ProcessorClass(
        {**_shortest(224), **_cropped(256), **_BICUBIC, "do_flip_channel_order": True},
        never=_NO_PAD | {"do_normalize"},
    ),
    "perceiver": ProcessorClass({**_square(224), **_cropped(256), **_BICUBIC, **_IMAGENET}, "perceiver", _NO_PAD),
    "poolformer": ProcessorClass(
        {**_shortest(224), **_cropped(224), **_BICUBIC, **_IMAGENET, "crop_pct": 0.9}, "poolformer"
    ),
    "ppdoclayoutv2": _OPENCV,
    "ppdoclayoutv3": _OPENCV,
    "ppdoclayoutv4": _OPENCV,
    "pplcnet": ProcessorClass(
        {
            "crop_size": 224,
            "do_center_crop": True,
            "image_mean": [0.406, 0.456, 0.485],
            "image_std": [0.225, 0.224, 0.229],
            "resize_short": 256,
            "size_divisor": 1,
        },
        "pp_lcnet",
        _NO_PAD,
        needs_torchvision=True,
    ),
    "ppocrv5serverdet": _TEXT_LINES,
    "pvt": ProcessorClass({**_square(224), **_BICUBIC, **_IMAGENET}),
    "rfdetr": ProcessorClass(
        _DETR_DEFAULTS, "detr", _NO_CROP, antialias=False, needs_torchvision=True, old_names=_OLD_NAMES
    ),
    "rtdetr": ProcessorClass(
        {**_square(640), "default_to_square": False, "do_normalize": False, "do_pad": False, **_IMAGENET},
        "detr",
        _NO_CROP,
    ),
    "sapiens2": ProcessorClass(
        {"size": {"height": 1024, "width": 768}, **_cropped(224, crops=False), "do_pad": False, **_IMAGENET},
        needs_torchvision=True,
        off={"do_pad": "puts a picture into the middle of a border"},
    ),
    "segformer": ProcessorClass({**_square(512), **_IMAGENET}, never=_NEITHER),
    "siglip": ProcessorClass({**_square(224), "default_to_square": False, **_BICUBIC, **_STANDARD}),
    "siglip2": ProcessorClass(unlike="cuts pictures into patches"),
    "textnet": ProcessorClass(
        {**_shortest(640), **_cropped(224, crops=False), "size_divisor": 32, **_IMAGENET}, "textnet", _NO_PAD
    ),
    "tipsv2dpt": ProcessorClass({**_square(448), "do_normalize": False}, needs_torchvision=True),
    "vit": ProcessorClass({**_square(224), **_STANDARD}),
    "yolos": ProcessorClass(_DETR_DEFAULTS, "yolos", _NO_CROP, old_names=_OLD_NAMES),
}
"""Name of the class in small letters, without what all of them end in -> what it does."""

SETTINGS = frozenset(_PIPELINE).union(UNNAMED.defaults, _OLD_NAMES, *(each.defaults for each in CLASSES.values()))
"""All settings that change a pixel in some class."""


def class_name(values: Mapping[str, Any]) -> str:
    """Return the name of the class that a file names, without `Fast` or `Pil`; "" where it names none."""
    named = values.get("image_processor_type") or values.get("feature_extractor_type") or ""
    return re.sub(r"(Fast|Pil)$", "", str(named))


def is_known(values: Mapping[str, Any]) -> bool:
    """Say whether the table has the class that a file names."""
    return _SUFFIX.sub("", class_name(values)).lower() in CLASSES


def heeded_settings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the settings that change a pixel in the class that a file names; all, if it is not known."""
    kind = CLASSES.get(_SUFFIX.sub("", class_name(values)).lower())
    return tuple(sorted(SETTINGS)) if kind is None else tuple(kind.settings({}))


def find_class(values: Mapping[str, Any], name: str) -> ProcessorClass:
    """Return the class that the file of this name names.

    One that is not in the table is taken by the rules of most where the file says all there is to say, as that of an archive
    does: its build has compared it with transformers.

    Raises:
        ConfigError: It is not known, and the file leaves something open; or it does what is not done here.
    """
    named = class_name(values)
    kind = CLASSES.get(_SUFFIX.sub("", named).lower())
    if kind is None:
        _refuse_open_questions(values, name, named)
        return UNNAMED
    unlike = [kind.unlike, *(what for key, what in kind.off.items() if values.get(key))]
    for what in filter(None, unlike):
        raise ConfigError(
            f"{name}: {named} {what}, which is not done here; describe something close to it in a file for --preprocessor, "
            "and where that is not enough let a handler of your own override transform"
        )
    return kind


def _refuse_open_questions(values: Mapping[str, Any], name: str, named: str) -> None:
    """Refuse a file of no known class that leaves something open, or has a setting with another meaning in each class."""
    what = f"{named} is not known here" if named else "no image_processor_type is named"
    missing = [key for key in _PIPELINE if key.startswith("do_") and values.get(key) is None] if named else []
    if missing:
        raise ConfigError(
            f"{name}: {what}, and {', '.join(missing)} are not said; add them, and remove image_processor_type if that "
            "is all it does, or write a handler of your own that overrides transform"
        )
    known = {*_PIPELINE, *UNNAMED.defaults}
    for key in sorted(SETTINGS - known):
        if values.get(key) not in (None, False):
            raise ConfigError(
                f"{name}: {key} is {values[key]!r}, and {what}; each class does something else by it: name the class that "
                "the model was trained with, or remove it"
            )
