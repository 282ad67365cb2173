"""How near an engine's answers are to the reference's, how many of them are right, and how much may be lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ts_handlers.batching.calls import ModelCalls, Outputs
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.gate.answers import Answers
from ts_handlers.build.steps import track
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import Session
from ts_handlers.shapes import Array

GROUP = 8
"""Samples that are run together: INT8's activations share their scale with their neighbours, as they will in a worker."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What an engine's answers are worth.

    Attributes:
        num_samples: Samples compared.
        mean_cosine: Cosine between the engine's answer and the reference's, mean over samples; of a regression what its
            relative error stands for, 1 - e^2 / 2: 0.998 is an error of 6.3 % of the usual value, 0.99 one of 14 %.
        min_cosine: Of the worst sample.
        agreement: Percent of samples with the reference's decision; None where the task decides nothing.
        accuracy: Percent of samples with the right label; None without labels.
        reference_accuracy: The reference's.
    """

    num_samples: int
    mean_cosine: float
    min_cosine: float
    agreement: float | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None

    @property
    def accuracy_drop(self) -> float | None:
        """Points of accuracy lost against the reference; negative where some were won."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy

    def as_dict(self) -> dict[str, Any]:
        """Return it for the build report."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Limits:
    """What passes. With labels accuracy decides; without them, how near the answers are to the reference's.

    Attributes:
        max_accuracy_drop: Points of accuracy that may be lost.
        min_mean_cosine: Least cosine with the reference's answers, mean over samples.
        min_cosine: Of the worst sample.
    """

    max_accuracy_drop: float = 0.5
    min_mean_cosine: float = 0.998
    min_cosine: float = 0.99

    def __post_init__(self) -> None:
        """Refuse limits that nothing could pass, or that are no numbers, before anything is made.

        Raises:
            OperatorError: There is one.
        """
        for option, value, least, most in (
            ("--max-accuracy-drop", self.max_accuracy_drop, -100, 100),
            ("--min-mean-cosine", self.min_mean_cosine, -1, 1),
            ("--min-cosine", self.min_cosine, -1, 1),
        ):
            if not least <= value <= most:
                raise OperatorError(f"{option} is {value:g}; give a number from {least} to {most}")

    def failures(self, quality: Quality) -> list[str]:
        """Say what does not hold; empty where all does. A number that is no number passes nothing."""
        drop = quality.accuracy_drop
        if drop is not None:
            if drop <= self.max_accuracy_drop:
                return []
            return [
                f"accuracy {quality.accuracy:.2f} % on {quality.num_samples} samples, {drop:.2f} points below fp32's "
                f"{quality.reference_accuracy:.2f} %; allowed are {self.max_accuracy_drop:g}"
            ]
        failures = []
        for name, value, least in (
            ("mean", quality.mean_cosine, self.min_mean_cosine),
            ("worst", quality.min_cosine, self.min_cosine),
        ):
            if not value >= least:
                failures.append(f"{name} cosine {value:.4f} on {quality.num_samples} samples; {least:g} is needed")
        return failures

    def as_dict(self) -> dict[str, Any]:
        """Return them for the build report."""
        return asdict(self)


class Reference:
    """The answers of the model in fp32 to some samples, to compare engines with.

    Args:
        answers: How outputs are read.
        inputs: The samples.
        session: The fp32 engine.
        calls: How sequences share its calls.
        labels: Right label of each sample; None without labels.
    """

    def __init__(
        self,
        answers: Answers,
        inputs: Iterable[ModelInput],
        session: Session,
        calls: ModelCalls,
        labels: Sequence[int] | None = None,
    ) -> None:
        self._answers, self.inputs, self._labels = answers, list(inputs), labels
        self._expected = self._run(session, calls)

    def quality(self, session: Session, calls: ModelCalls) -> Quality:
        """Run an engine on the samples and compare it.

        Raises:
            OperatorError: It fails, or returns numbers that are not finite.
        """
        actual = self._run(session, calls)
        cosines = _cosines(actual, self._expected, are_values=self._answers.are_values)
        return Quality(
            num_samples=len(cosines),
            mean_cosine=float(np.mean(cosines)),
            min_cosine=float(np.min(cosines)),
            agreement=self._agreement(actual),
            accuracy=self._accuracy(actual),
            reference_accuracy=self._accuracy(self._expected),
        )

    def _run(self, session: Session, calls: ModelCalls) -> list[Array]:
        answers: list[Array] = []
        for start in track(range(0, len(self.inputs), GROUP), "batches"):
            group = self.inputs[start : start + GROUP]
            outcomes = calls.run(session, group, calls.plan(session, group))
            answers.extend(self._answer(item, outcome) for item, outcome in zip(group, outcomes, strict=True))
        return answers

    def _answer(self, item: ModelInput, outcome: Outputs | Exception) -> Array:
        if isinstance(outcome, Exception):
            raise OperatorError(f"the engine fails on a sample of {item.describe_size()}: {outcome}") from outcome
        answer = self._answers.of(outcome)
        if not np.isfinite(answer).all():
            raise OperatorError(
                f"the engine returns numbers that are not finite on a sample of {item.describe_size()}; "
                "take another precision, or leave the sample out where fp32 does so, too"
            )
        return answer

    def _agreement(self, actual: Sequence[Array]) -> float | None:
        pairs = [
            (self._answers.decision(mine), self._answers.decision(theirs))
            for mine, theirs in zip(actual, self._expected, strict=True)
        ]
        if any(mine is None for mine, _ in pairs):
            return None
        return 100.0 * sum(mine == theirs for mine, theirs in pairs) / len(pairs)

    def _accuracy(self, actual: Sequence[Array]) -> float | None:
        if self._labels is None:
            return None
        right = sum(int(answer[0].argmax()) == label for answer, label in zip(actual, self._labels, strict=True))
        return 100.0 * right / len(self._labels)


def _cosines(actual: Sequence[Array], expected: Sequence[Array], *, are_values: bool = False) -> list[float]:
    """Return the cosine of each pair of answers.

    A single number has no direction. Of a regression it is the cosine that vectors of equal length have at the same
    relative error e, 1 - e^2 / 2, with the root mean square of all expected numbers as their usual size.
    """
    if expected and (are_values or expected[0].shape[-1] == 1):
        usual = max(float(np.sqrt(np.mean([np.mean(theirs**2) for theirs in expected]))), 1e-12)
        pairs = zip(actual, expected, strict=True)
        errors = [float(np.sqrt(np.mean((mine - theirs) ** 2))) / usual for mine, theirs in pairs]
        return [max(-1.0, 1 - error**2 / 2) for error in errors]
    return [_cosine(mine, theirs) for mine, theirs in zip(actual, expected, strict=True)]


def _cosine(left: Array, right: Array) -> float:
    """Return the mean cosine of the rows of two `(rows, n)` answers; 1 where both are zero."""
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    products = (left * right).sum(axis=-1)
    same = (left == right).all(axis=-1)
    return float(np.where(same, 1.0, products / np.maximum(norms, 1e-12)).mean())
