"""Vision tasks: one class each, a few overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ts_handlers.batching.padding import ModelInput
from ts_handlers.config.labels import read_labels
from ts_handlers.config.tasks import DetectionOutput, ImageClassificationOutput, SegmentationOutput
from ts_handlers.errors import ConfigError, InferenceError, PayloadTooLargeError, RequestError
from ts_handlers.handler import InferenceHandler
from ts_handlers.imaging.boxes import format_detections, from_detector, from_queries
from ts_handlers.imaging.decoding import (
    EncodedImage,
    ImageLimits,
    Picture,
    allow_pixels,
    decode_image,
    open_image,
    picture_from_pixels,
)
from ts_handlers.imaging.masks import MASK_FORMATS, format_mask, read_mask
from ts_handlers.imaging.preprocessing import Preprocessing, pixel_mask, preprocess
from ts_handlers.imaging.processors.preprocessor_config import read_preprocessing
from ts_handlers.outputs import default_function, one_axis, score_labels
from ts_handlers.requests.image_instance import read_instance
from ts_handlers.shapes import Array, Size

_TYPICAL_SIZE = (480, 640)
"""(height, width) of the picture that models of no fixed size are warmed up with."""


class ImageExample(NamedTuple):
    """An image, as far as it can be told without its pixels.

    Attributes:
        image: A file whose header was read, decoded pixels, or a tensor that is ready for the model.
        options: What the instance asked for beside it.
    """

    image: EncodedImage | Picture | NDArray[np.float32]
    options: Mapping[str, Any]


class ImageHandler(InferenceHandler):
    """What the vision tasks share: preprocessing, and instances that are images.

    Attributes:
        preprocessing: What is done to a picture.
    """

    instance_type = "image"
    interleaves = True
    preprocessing: Preprocessing

    def prepare(self) -> None:
        """Read preprocessor_config.json."""
        self.preprocessing = read_preprocessing(self.model_dir / self.config.image.file)
        if self.pads_images and self.config.image.layout != "NCHW":
            raise ConfigError("handler.image.pixel_mask needs layout NCHW; pictures of another are not padded")
        limits = self.config.limits
        allow_pixels(limits.max_image_pixels)
        self._limits = ImageLimits(limits.max_image_bytes, limits.max_image_pixels)

    @property
    def pads_images(self) -> bool:
        """Whether the model takes a mask of what is padding."""
        configured = self.config.image.pixel_mask
        return self.preprocessing.pads if configured is None else configured

    @property
    def num_parallel_transforms(self) -> int:
        """As many as the worker has threads: decoding and resizing let other threads run."""
        return self.share.threads

    @property
    def request_limit(self) -> tuple[int, str]:
        """Most pixels of one request, as the model is fed them."""
        return self.config.limits.max_pixels, "pixels"

    def decode(self, instance: Any) -> Any:
        """Take a file, base64 or a tensor; return an `ImageExample`, its pixels not yet decoded.

        Raises:
            RequestError: 400, anything else, or a broken file.
            PayloadTooLargeError: 413, over handler.limits.max_image_bytes or max_image_pixels.
            UnsupportedMediaTypeError: 415, no image of a known format.
        """
        found = read_instance(instance, max_bytes=self._limits.max_bytes, options=self.options)
        if found.array is None:
            encoded = open_image(found.content or b"", self._limits)
            self._check_size(self.preprocessing.resized(encoded.height, encoded.width))
            return ImageExample(encoded, found.options)
        if found.array.dtype.kind == "f":
            return ImageExample(self._check_tensor(found.array), found.options)
        picture = picture_from_pixels(found.array)
        self._check_size((picture.height, picture.width))
        self._check_size(self.preprocessing.resized(picture.height, picture.width))
        return ImageExample(picture, found.options)

    def transform(self, example: Any) -> Sequence[ModelInput]:
        """Decode, resize and normalize an `ImageExample`.

        Raises:
            RequestError: 400, the pixels are broken or cut off.
        """
        image = example.image
        if isinstance(image, np.ndarray):
            return [self._model_input(image, (image.shape[1], image.shape[2]))]
        picture = image
        if isinstance(image, EncodedImage):
            reduces = self.config.image.reduces_jpeg
            wanted = self.preprocessing.reduced(image.height, image.width) if reduces else None
            picture = decode_image(image, wanted, resample=self.preprocessing.resample)
        original = (picture.height, picture.width)
        content = self.preprocessing.content_size(*original)
        return [self._model_input(preprocess(picture, self.preprocessing), original, content)]

    def warmup_input(self, length: int) -> ModelInput:
        """Return a black picture of the model's size."""
        del length
        height, width = self.preprocessing.fixed_size or self.preprocessing.input_size(*_TYPICAL_SIZE)
        return self._model_input(np.zeros((3, height, width), dtype=np.float32), (height, width))

    def _model_input(self, values: NDArray[np.float32], original: Size, content: Size | None = None) -> ModelInput:
        size = (values.shape[1], values.shape[2])
        if self.config.image.layout == "NHWC":
            values = np.ascontiguousarray(values.transpose(1, 2, 0))
        arrays: dict[str, Array] = {"pixel_values": values}
        if self.pads_images:
            arrays["pixel_mask"] = pixel_mask(content or size, size)
        return ModelInput(arrays, source=original, size=size)

    def _check_tensor(self, tensor: Array) -> NDArray[np.float32]:
        fixed = self.preprocessing.fixed_size
        wanted = [3, *(fixed or ("height", "width"))]
        if tensor.ndim != 3 or tensor.shape[0] != 3 or (fixed is not None and tensor.shape[1:] != fixed):
            raise RequestError(
                f"the tensor is of shape {list(tensor.shape)}; floats are fed to the model as they are: send {wanted}, or a "
                "file, or integers from 0 to 255",
                code="invalid_shape",
            )
        self._check_size((tensor.shape[1], tensor.shape[2]))
        return tensor.astype(np.float32)

    def _check_size(self, size: Size) -> None:
        """Refuse what is large, or becomes so: a line of a few pixels' height is resized to a picture of a huge width."""
        height, width = size
        if height * width > self._limits.max_pixels:
            raise PayloadTooLargeError(
                f"the image is fed to the model as {width} x {height} pixels; it takes {self._limits.max_pixels} in all: "
                "send one of another shape",
                code="image_too_large",
            )


class ImageClassificationHandler(ImageHandler):
    """Image -> {label: score}, best first."""

    task = "image-classification"
    output_config = ImageClassificationOutput

    def prepare(self) -> None:
        """Read preprocessor_config.json and the labels."""
        super().prepare()
        self._labels = read_labels(self.model_dir)
        output = self.config.output
        self._function = output.function_to_apply or default_function(output.problem_type, len(self._labels))

    def format(
        self, example: ImageExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> dict[str, float]:
        """Score the labels from `logits` (num_labels,), or with axes of one element beside it."""
        del example, inputs
        settings = self.config.output
        logits = one_axis(outputs[0]["logits"])
        return score_labels(logits, self._labels, self._function, top_k=settings.top_k, threshold=settings.threshold)


class ObjectDetectionHandler(ImageHandler):
    """Image -> [{label: [x1, y1, x2, y2], "score": score}], best first, in pixels of the image that was sent."""

    task = "object-detection"
    output_config = DetectionOutput

    def prepare(self) -> None:
        """Read preprocessor_config.json and the labels."""
        super().prepare()
        self._labels = read_labels(self.model_dir, are_keys=False)
        if "score" in self._labels:
            raise ConfigError('index_to_name.json has a label "score", which answers use for the score; rename it')

    def format(
        self, example: ImageExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Any]]:
        """Read `logits` and `pred_boxes` (transformers), or `boxes`, `labels` and `scores` (torchvision)."""
        del example
        output, item, settings = outputs[0], inputs[0], self.config.output
        if "pred_boxes" in output:
            found = from_queries(output["logits"], output["pred_boxes"], len(self._labels), settings.function_to_apply)
        elif {"boxes", "labels", "scores"} <= set(output):
            if self.preprocessing.pad_size is not None:
                raise InferenceError(
                    "the boxes are in pixels of a picture with a border, by pad_size, and are not brought back from there; "
                    "give the model preprocessing without pad_size"
                )
            count = int(output["num_detections"]) if "num_detections" in output else len(output["scores"])
            found = from_detector(
                output["labels"][:count], output["scores"][:count], output["boxes"][:count], item.size or (1, 1)
            )
        else:
            raise InferenceError(
                f"the model returned {', '.join(output)}; logits and pred_boxes, or boxes, labels and scores are needed"
            )
        return format_detections(found, self._labels, item.source, threshold=settings.threshold, top_k=settings.top_k)


class ImageSegmentationHandler(ImageHandler):
    """Image -> {"height", "width", "mask", "segments"}: a label for each pixel of the image that was sent."""

    task = "image-segmentation"
    output_config = SegmentationOutput
    options = ("mask",)

    def prepare(self) -> None:
        """Read preprocessor_config.json and the labels."""
        super().prepare()
        self._labels = read_labels(self.model_dir, are_keys=False)

    def decode(self, instance: Any) -> Any:
        """Take an image, and, in a JSON object, "mask": png, rle or list.

        Raises:
            RequestError: 400, anything else.
        """
        example = super().decode(instance)
        wanted = example.options.get("mask", self.config.output.mask)
        if wanted not in MASK_FORMATS:
            raise RequestError(
                f'"mask" is {str(wanted)[:40]!r}; send one of {", ".join(MASK_FORMATS)}', code="invalid_type"
            )
        return example._replace(options={"mask": wanted})

    def format(
        self, example: ImageExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> dict[str, Any]:
        """Label each pixel by `logits`, which are what `handler.output.pixels` says."""
        mask = read_mask(outputs[0]["logits"], inputs[0].source, self.config.output.pixels, len(self._labels))
        return format_mask(mask, self._labels, example.options["mask"])
