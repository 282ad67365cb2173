"""The gate: how much of a model's quality an engine may cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ts_handlers.build.gate.quality import Quality
from ts_handlers.errors import OperatorError


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
