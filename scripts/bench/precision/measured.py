"""What was measured of one model: every engine that was tried, beside ONNX Runtime in fp32. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ts_handlers.build.trial import Trial

BASELINE = "onnx fp32"
"""Name of the method the others' speed is compared with."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model.

    Attributes:
        name: What it is asked for by.
        title: Heading of its part of the page.
        about: The model and the data, in a few sentences.
        trials: What became of each method that was tried.
        left_out: Name of each method that was not tried -> why.
        aim: What is hoped for; None where nothing is.
        is_text: Whether a sample is a text of some length, or a picture.
    """

    name: str
    title: str
    about: str
    trials: Sequence[Trial]
    left_out: Mapping[str, str]
    aim: Aim | None = None
    is_text: bool = True

    @property
    def made(self) -> list[Trial]:
        """The trials with an engine that was measured, the fastest first."""
        return sorted((trial for trial in self.trials if trial.latency is not None), key=ms_per_sample)

    @property
    def not_made(self) -> dict[str, str]:
        """Name of each method without an engine -> why."""
        failed = {trial.method.name: "; ".join(trial.failures) for trial in self.trials if trial.latency is None}
        return {**self.left_out, **failed}

    def speed(self, trial: Trial) -> float | None:
        """Return how many times as fast an engine is as the baseline; None where that was not measured."""
        for other in self.made:
            if other.method.name == BASELINE:
                return ms_per_sample(other) / ms_per_sample(trial)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it, ready for json.dumps."""
        return {
            "title": self.title,
            "about": self.about,
            "trials": [trial.as_dict() | {"speed": self.speed(trial)} for trial in self.made],
            "not_made": self.not_made,
            "aim": self.aim and self.aim.verdict(self),
        }


@dataclass(frozen=True, slots=True)
class Aim:
    """A speed to reach, and how good the answers must still be.

    Attributes:
        speed: Times the baseline's.
        min_mean_cosine: Least mean cosine with the source's answers; None: only the speed counts.
        quantizers: Methods that count; empty: all.
    """

    speed: float
    min_mean_cosine: float | None = None
    quantizers: frozenset[str] = frozenset()

    def verdict(self, measured: Measured) -> str:
        """Say whether an engine reaches it: the fastest that is good enough."""
        wanted = f"{self.speed:g}x {BASELINE}"
        if self.min_mean_cosine is not None:
            wanted += f" at a mean cosine of {self.min_mean_cosine:g}"
        for trial in measured.made:
            speed = measured.speed(trial)
            if speed is not None and self._counts(trial):
                outcome = "reached" if speed >= self.speed else "**not reached**"
                return f"Aim: {wanted}; {outcome}, {trial.method.name} has {speed:.2f}x{_cosine(trial)}."
        return f"Aim: {wanted}; **not reached**, no engine counts."

    def _counts(self, trial: Trial) -> bool:
        if self.quantizers and trial.method.quantizer not in self.quantizers:
            return False
        if self.min_mean_cosine is None:
            return True
        return trial.quality is not None and trial.quality.mean_cosine >= self.min_mean_cosine


def ms_per_sample(trial: Trial) -> float:
    """Return the milliseconds of one sample; infinity where they were not measured."""
    return trial.latency.ms_per_sample if trial.latency is not None else float("inf")


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other one beats in both speed and mean cosine, the fastest first."""
    found: list[Trial] = []
    nearest = float("-inf")
    for trial in sorted(trials, key=lambda trial: (ms_per_sample(trial), -_mean_cosine(trial))):
        if trial.latency is not None and trial.quality is not None and _mean_cosine(trial) > nearest:
            nearest = _mean_cosine(trial)
            found.append(trial)
    return found


def _mean_cosine(trial: Trial) -> float:
    return trial.quality.mean_cosine if trial.quality is not None else float("-inf")


def _cosine(trial: Trial) -> str:
    return f" at {trial.quality.mean_cosine:.5f}" if trial.quality is not None else ""
