"""Trials as text: a row for each, the fastest first, those that were not made last."""

from __future__ import annotations

from collections.abc import Sequence

from ts_handlers.build.trial import Trial

_HEAD = ("engine", "accuracy %", "agreement %", "cosine", "worst", "MiB", "ms/sample")


def trial_table(trials: Sequence[Trial], chosen: Trial | None = None) -> str:
    """Return the table; the chosen trial is marked."""
    shapes = next((tuple(trial.latency.ms_by_shape) for trial in trials if trial.latency is not None), ())
    rows = [(*_HEAD, *(f"ms {shape}" for shape in shapes), "gate")]
    rows += [_row(trial, shapes, is_chosen=trial is chosen) for trial in sorted(trials, key=_speed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(trial: Trial, shapes: Sequence[str], *, is_chosen: bool) -> tuple[str, ...]:
    quality, latency = trial.quality, trial.latency
    return (
        trial.method.name,
        _number(quality.accuracy if quality else None, 2),
        _number(quality.agreement if quality else None, 2),
        _number(quality.mean_cosine if quality else None, 4),
        _number(quality.min_cosine if quality else None, 4),
        _number(trial.size_bytes / 2**20 if trial.size_bytes else None, 1),
        _number(latency.ms_per_sample if latency else None, 2),
        *(_number(latency.ms_by_shape[shape] if latency else None, 2) for shape in shapes),
        "chosen" if is_chosen else trial.failures[0] if trial.failures else "passes",
    )


def _speed(trial: Trial) -> float:
    return trial.latency.ms_per_sample if trial.latency is not None else float("inf")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
