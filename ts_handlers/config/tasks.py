"""The tasks: what each one's handler is called, and its own settings, `handler.output`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ts_handlers.config.settings import setting


@dataclass(frozen=True, slots=True)
class ClassificationOutput:
    """`handler.output` of text-classification.

    Attributes:
        problem_type: The model's; it decides between softmax (single label) and sigmoid (multi-label).
        top_k: Most labels in an answer, best first; by default all.
        threshold: Smallest score in an answer.
    """

    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = None
    top_k: int | None = setting(None, minimum=1)
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """`handler.output` of feature-extraction.

    Attributes:
        pooling: How the tokens' vectors become one, by sentence-transformers' names.
        normalize: Whether it is scaled to length 1.
        truncate_dim: Numbers that are kept, the first ones; by default all.
    """

    pooling: Literal["mean", "mean_sqrt_len_tokens", "weightedmean", "cls", "lasttoken", "max"] = "mean"
    normalize: bool = False
    truncate_dim: int | None = setting(None, minimum=1)


@dataclass(frozen=True, slots=True)
class EntityOutput:
    """`handler.output` of token-classification.

    Attributes:
        aggregation_strategy: How tokens become entities, as in the transformers pipeline.
        ignore_labels: Labels that are no entity.
        stride: Tokens shared by the windows of a text longer than the model takes; by default such a text is answered
            with 413.
    """

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: tuple[str, ...] = ("O",)
    stride: int | None = setting(None, minimum=0)


@dataclass(frozen=True, slots=True)
class AnswerOutput:
    """`handler.output` of question-answering; names and defaults are the transformers pipeline's.

    Attributes:
        top_k: Answers returned; 1: one object, more: a list.
        max_answer_len: Longest answer, in tokens.
        max_seq_len: Window length, in tokens; by default min(max_length, 384).
        doc_stride: Tokens that one window shares with the next; by default min(max_seq_len / 2, 128).
        handle_impossible_answer: Whether an empty answer may win.
        align_to_words: Whether an answer begins and ends with whole words.
    """

    top_k: int = setting(1, minimum=1)
    max_answer_len: int = setting(15, minimum=1)
    max_seq_len: int | None = setting(None, minimum=8)
    doc_stride: int | None = setting(None, minimum=0)
    handle_impossible_answer: bool = False
    align_to_words: bool = True


@dataclass(frozen=True, slots=True)
class ImageClassificationOutput:
    """`handler.output` of image-classification.

    Attributes:
        problem_type: The model's; it decides between softmax (single label) and sigmoid (multi-label).
        function_to_apply: What makes scores of the model's outputs, whatever problem_type says; `none` for a model that
            ends in softmax or sigmoid itself.
        top_k: Most labels in an answer, best first.
        threshold: Smallest score in an answer.
    """

    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    top_k: int | None = setting(5, minimum=1)
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class DetectionOutput:
    """`handler.output` of object-detection.

    Attributes:
        threshold: Smallest score of an object.
        top_k: Most objects in an answer, best first; None: all.
        function_to_apply: What makes scores of `logits` beside `pred_boxes`; by default softmax where there is one logit
            more than labels, else sigmoid; `none` for a model that gives scores.
    """

    threshold: float = 0.5
    top_k: int | None = setting(100, minimum=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


@dataclass(frozen=True, slots=True)
class SegmentationOutput:
    """`handler.output` of image-segmentation.

    Attributes:
        mask: Form of the mask where the request asks for none: a grey PNG in base64, runs of label indices, or rows.
        pixels: What the model gives of a pixel: `labels`, a number for each, (labels, height, width); `labels_last`, the
            same as (height, width, labels); `logit` or `probability`, one number, of which more than 0 or 0.5 is the second
            label; `index`, the label's index.
    """

    mask: Literal["png", "rle", "list"] = "png"
    pixels: Literal["labels", "labels_last", "logit", "probability", "index"] = "labels"


NAME_PATTERN = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Model names and versions, without two dots in a row: they become file names and parts of URLs."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        handler: Name of its handler class, in `ts_handlers`.
        output_config: Dataclass of its `handler.output`.
        instances: What it takes.
    """

    handler: str
    output_config: type
    instances: Literal["text", "image"] = "text"


TASKS: Mapping[str, Task] = {
    "text-classification": Task("TextClassificationHandler", ClassificationOutput),
    "token-classification": Task("TokenClassificationHandler", EntityOutput),
    "question-answering": Task("QuestionAnsweringHandler", AnswerOutput),
    "feature-extraction": Task("FeatureExtractionHandler", EmbeddingOutput),
    "image-classification": Task("ImageClassificationHandler", ImageClassificationOutput, "image"),
    "object-detection": Task("ObjectDetectionHandler", DetectionOutput, "image"),
    "image-segmentation": Task("ImageSegmentationHandler", SegmentationOutput, "image"),
}
"""Hugging Face's name of each task -> the task."""
