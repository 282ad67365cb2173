"""Model outputs -> the numbers a client sees, and what it would decide by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ts_handlers.config.settings import from_mapping
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.masks import pixel_scores
from ts_handlers.outputs import ScoreFunction, default_function, embed, one_axis, sigmoid, softmax
from ts_handlers.shapes import Array

_UNDECIDED = ("feature-extraction", "image-segmentation", "object-detection")
"""Tasks that decide nothing, or so many things that one of them always differs."""

_SCORE: Mapping[ScoreFunction, Callable[[Array], Array]] = {"softmax": softmax, "sigmoid": sigmoid, "none": np.asarray}


class Answers:
    """What a task's client sees: scores, not logits, and an embedding, not the vectors of its tokens.

    Logits near zero point anywhere, so that their cosine says nothing; scores do not.

    Args:
        task: Hugging Face task name.
        output: `handler.output` of the archive.
        num_labels: Labels the model scores; 0 where the task has none.
    """

    def __init__(self, task: str, output: Mapping[str, Any], num_labels: int = 0) -> None:
        self._task = task
        self._settings: Any = from_mapping(TASKS[task].output_config, output, "handler.output")
        self._num_labels = num_labels

    def of(self, outputs: Mapping[str, Array]) -> Array:
        """Return the answer from one sequence's outputs: `(..., n)` float64, one distribution or vector a row."""
        if self._task == "feature-extraction":
            settings = self._settings
            vector = embed(
                outputs["last_hidden_state"],
                settings.pooling,
                normalize=settings.normalize,
                truncate_dim=settings.truncate_dim,
            )
            return np.asarray(vector, dtype=np.float64)[None]
        if self._task == "image-segmentation":
            return pixel_scores(_output(outputs, "logits"), self._settings.pixels, self._num_labels)
        if self._task == "object-detection":
            return self._detections(outputs)
        if self._task == "question-answering":
            logits = np.stack([outputs["start_logits"], outputs["end_logits"]]).astype(np.float64)
            return softmax(logits)
        logits = _output(outputs, "logits")
        if self._task == "token-classification":
            return softmax(np.atleast_2d(logits).astype(np.float64))
        scores = _SCORE[self._function](one_axis(logits)[None].astype(np.float64))
        if self._is_multi_label:  # a distribution for each label: it applies, or not
            return np.stack([scores[0], 1 - scores[0]], axis=-1)
        return scores

    def decision(self, answer: Array) -> tuple[int, ...] | None:
        """Return what is decided by an answer (label indices, or the ends of a span); None where nothing is."""
        if self._task in _UNDECIDED or self.are_values or answer.shape[-1] == 1:
            return None
        if self._task in ("text-classification", "image-classification") and self._is_multi_label:
            return tuple(int(row[0] > 0.5) for row in answer)
        return tuple(int(index) for index in answer.argmax(axis=-1))

    def _detections(self, outputs: Mapping[str, Array]) -> Array:
        """Return scores and box of each query."""
        if "pred_boxes" not in outputs:
            raise OperatorError("a detector that returns lists is not judged; leave out --evaluation and --calibration")
        logits = _output(outputs, "logits").astype(np.float64)
        function: ScoreFunction = self._settings.function_to_apply or (
            "sigmoid" if logits.shape[-1] == self._num_labels else "softmax"
        )
        return np.concatenate([_SCORE[function](logits), outputs["pred_boxes"].astype(np.float64)], axis=-1)

    @property
    def are_values(self) -> bool:
        """Whether they are a regression's values, of which the size counts, not the direction."""
        return getattr(self._settings, "problem_type", None) == "regression"

    @property
    def _function(self) -> ScoreFunction:
        chosen: ScoreFunction | None = getattr(self._settings, "function_to_apply", None)
        return chosen or self._default

    @property
    def _default(self) -> ScoreFunction:
        return default_function(self._settings.problem_type, self._num_labels)

    @property
    def _is_multi_label(self) -> bool:
        return self._function == "sigmoid" or (self._function == "none" and self._default == "sigmoid")


def _output(outputs: Mapping[str, Array], name: str) -> Array:
    """Return an output that a handler of one's own may have done without."""
    if name not in outputs:
        raise OperatorError(
            f"the model gives {', '.join(outputs)}, and answers are judged by {name}; leave out --evaluation and "
            "--calibration"
        )
    return outputs[name]
