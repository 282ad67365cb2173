"""Engines on trial: each is made, compared with the source, timed beside the others, and the fastest that passes is kept."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Latency, Limits, Quality, Reference, measure_latencies
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError, reason
from ts_handlers.runtime import Session

BASELINE = "onnx fp32"
"""Name of the method that others are seen beside."""

_HEAD = ("engine", "accuracy %", "agreement %", "cosine", "worst", "MiB", "ms/sample")

OpenEngine = Callable[[Engine], tuple[Session, ModelCalls]]
"""Opens an engine as a worker with one thread would."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one method.

    Attributes:
        method: The method.
        engine: What it made; None where it failed: its files are gone.
        quality: How its answers compare with the source's.
        latency: What it takes.
        failures: Why it is not taken; empty where it passes.
        size_bytes: Bytes of its files.
    """

    method: Method
    engine: Engine | None = None
    quality: Quality | None = None
    latency: Latency | None = None
    failures: tuple[str, ...] = ()
    size_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for the build report."""
        found: dict[str, Any] = {
            "method": self.method.name,
            "passes": not self.failures,
            "failures": list(self.failures),
        }
        if self.size_bytes:
            found["model_bytes"] = self.size_bytes
        if self.quality is not None:
            found["quality"] = self.quality.as_dict()
        if self.latency is not None:
            found["latency"] = self.latency.as_dict()
        return found


class Trials:
    """Tries methods on the same samples.

    Args:
        material: What engines are made from.
        reference: The source's own answers.
        limits: What passes.
        open_engine: How an engine is opened.
        work: Folder for the engines' files, one below it for each method.
        keeps_failed: Whether engines that do not pass are timed all the same; the baseline always is.
    """

    def __init__(
        self,
        material: Material,
        reference: Reference,
        limits: Limits,
        open_engine: OpenEngine,
        work: Path,
        *,
        keeps_failed: bool = False,
    ) -> None:
        self._material, self._reference, self._limits = material, reference, limits
        self._open, self._work, self._keeps_failed = open_engine, work, keeps_failed

    def run(self, methods: Sequence[Method]) -> list[Trial]:
        """Make, judge and time the engines of all methods."""
        return self._timed([self._judged(method) for method in methods])

    def _judged(self, method: Method) -> Trial:
        progress = self._material.progress
        progress(f"{method.name}:")
        folder = self._work / method.name.replace(" ", "-")
        folder.mkdir()
        try:
            engine = method.make(self._material, folder)
            with step(progress, f"compare with the source on {len(self._reference.inputs)} samples"):
                quality = self._reference.quality(*self._open(engine))
        except Exception as error:  # noqa: BLE001  # of libraries that have bugs of their own: others are still tried
            shutil.rmtree(folder)
            progress(f"  not made: {reason(error)}")
            return Trial(method, failures=(reason(error),))
        finally:
            gc.collect()  # an engine may hold hundreds of megabytes in cycles
        failures = tuple(self._limits.failures(quality))
        progress(f"  {describe(quality)}{'; ' + '; '.join(failures) if failures else ''}")
        size = sum(file.stat().st_size for file in (engine.serialized_file, *engine.extra_files))
        trial = Trial(method, engine, quality, failures=failures, size_bytes=size)
        if not failures or self._keeps_failed or method.name == BASELINE:
            return trial
        shutil.rmtree(folder)
        return replace(trial, engine=None)

    def _timed(self, trials: Sequence[Trial]) -> list[Trial]:
        opened: dict[str, tuple[Session, ModelCalls]] = {}
        failures: dict[str, str] = {}
        tried = [self._opened(trial, opened) for trial in trials]
        latencies: Mapping[str, Latency] = {}
        if opened:
            with step(self._material.progress, f"time {len(opened)} engines in turns, on one thread"):
                latencies = measure_latencies(opened, self._reference.inputs, failures=failures)
        names = [trial.method.name for trial in tried]
        return [
            replace(
                trial,
                latency=latencies.get(name),
                failures=(*trial.failures, failures[name]) if name in failures else trial.failures,
            )
            for name, trial in zip(names, tried, strict=True)
        ]

    def _opened(self, trial: Trial, opened: dict[str, tuple[Session, ModelCalls]]) -> Trial:
        """Open a trial's engine to be timed beside the others; where there is no room for one more it is not taken."""
        try:
            if trial.engine is not None:
                opened[trial.method.name] = self._open(trial.engine)
        except Exception as error:  # noqa: BLE001  # as above
            return replace(trial, failures=(*trial.failures, f"cannot be opened to be timed: {reason(error)}"))
        return trial


def fastest(trials: Sequence[Trial]) -> Trial:
    """Return the fastest trial that passes.

    Raises:
        OperatorError: None does.
    """
    passing = [trial for trial in trials if not trial.failures and trial.latency is not None]
    if not passing:
        reasons = "; ".join(f"{trial.method.name}: {', '.join(trial.failures)}" for trial in trials)
        raise OperatorError(f"no engine passes the gate: {reasons}; {_advice(trials)}")
    return min(passing, key=_speed)


def _advice(trials: Sequence[Trial]) -> str:
    """Say what can be done where no engine passes."""
    judged = [trial for trial in trials if trial.quality is not None]
    advice = []
    if any(trial.method.needs_calibration for trial in judged):
        advice.append("give other calibration samples")
    if any(trial.quality.accuracy is not None for trial in judged if trial.quality):
        advice.append("allow more (--max-accuracy-drop)")
    elif judged:
        advice.append("allow more (--min-mean-cosine, --min-cosine)")
    if all(trial.method.precision != "fp32" for trial in trials):
        advice.append("build --precision fp32")
    return ", or ".join(advice) or "take another --backend"


def describe(quality: Quality) -> str:
    """Say a quality in a few words."""
    words = [f"cosine {quality.mean_cosine:.4f}, worst {quality.min_cosine:.4f}"]
    if quality.agreement is not None:
        words.insert(0, f"agreement {quality.agreement:.2f} %")
    if quality.accuracy is not None and quality.reference_accuracy is not None:
        words.insert(0, f"accuracy {quality.accuracy:.2f} % (fp32 {quality.reference_accuracy:.2f} %)")
    return ", ".join(words)


def trial_table(trials: Sequence[Trial], chosen: Trial | None = None) -> str:
    """Return the trials as text: a row for each, the fastest first; the chosen one is marked."""
    shapes = next((tuple(trial.latency.ms_by_shape) for trial in trials if trial.latency is not None), ())
    rows = [(*_HEAD, *(f"ms {shape}" for shape in shapes), "gate")]
    rows += [_row(trial, shapes, is_chosen=trial is chosen) for trial in sorted(trials, key=_speed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(trial: Trial, shapes: Sequence[str], *, is_chosen: bool) -> tuple[str, ...]:
    quality, latency = trial.quality, trial.latency
    numbers: list[tuple[float | None, int]] = [
        *((getattr(quality, name, None), 2) for name in ("accuracy", "agreement")),
        *((getattr(quality, name, None), 4) for name in ("mean_cosine", "min_cosine")),
        (trial.size_bytes / 2**20 or None, 1),
        (latency.ms_per_sample if latency else None, 2),
        *((latency.ms_by_shape[shape] if latency else None, 2) for shape in shapes),
    ]
    cells = ["-" if value is None else f"{value:.{digits}f}" for value, digits in numbers]
    return trial.method.name, *cells, "chosen" if is_chosen else trial.failures[0] if trial.failures else "passes"


def _speed(trial: Trial) -> float:
    return trial.latency.ms_per_sample if trial.latency is not None else float("inf")
