"""How long engines take, in turns: A B A B, so that a noisy machine is unfair to all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.steps import track
from ts_handlers.errors import OperatorError, reason
from ts_handlers.runtime import Session

BATCH = 8
"""Samples of the larger call, a worker's usual batch."""

QUANTILES = (0.1, 0.5, 0.9)
"""Lengths that are measured, as quantiles of the samples' lengths."""

ROUNDS = 5
REPLAYED = 64
"""Samples of the replay: what engines are ranked by."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What one engine takes on one thread.

    Attributes:
        ms_per_sample: Milliseconds a sample, of real samples in batches of 8 as a worker plans them; median of rounds.
        ms_by_shape: Milliseconds of a call by its shape, "1x24" being one sequence of 24 tokens; median of rounds.
    """

    ms_per_sample: float
    ms_by_shape: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return it for the build report."""
        return asdict(self)


def measure_latencies(
    engines: Mapping[str, tuple[Session, ModelCalls]],
    inputs: Sequence[ModelInput],
    rounds: int = ROUNDS,
    *,
    failures: MutableMapping[str, str] | None = None,
) -> dict[str, Latency]:
    """Measure engines in turns, on samples spread over the data.

    Args:
        engines: Each with its session, opened on one thread, and how sequences share its calls.
        inputs: The samples.
        rounds: How often each is measured, after a round that warms up.
        failures: Takes the reason of an engine that fails, which is then left out; None: that is an error.

    Raises:
        OperatorError: An engine fails.
    """
    failed = {} if failures is None else failures
    works = {"replay": _batches(inputs), **_shapes(inputs)}
    times: dict[str, dict[str, list[float]]] = {name: {work: [] for work in works} for name in engines}
    for number in track(range(rounds + 1), "rounds"):
        for name in [name for name in engines if name not in failed]:
            try:
                taken = _times(*engines[name], works)
            except Exception as error:
                if failures is None:
                    raise
                failures[name] = reason(error)
                continue
            if number:
                for work, seconds in taken.items():
                    times[name][work].append(seconds)
    return {
        name: Latency(
            ms_per_sample=round(statistics.median(found.pop("replay")) * 1000 / sum(map(len, works["replay"])), 3),
            ms_by_shape={shape: round(statistics.median(taken) * 1000, 3) for shape, taken in found.items()},
        )
        for name, found in times.items()
        if name not in failed
    }


def _batches(inputs: Sequence[ModelInput]) -> list[Sequence[ModelInput]]:
    step = max(1, len(inputs) // REPLAYED)
    chosen = list(inputs[::step])[:REPLAYED]
    return [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]


def _shapes(inputs: Sequence[ModelInput]) -> dict[str, list[Sequence[ModelInput]]]:
    """Return calls of one and of eight sequences of the data's lengths."""
    by_length = sorted(inputs, key=lambda item: item.num_positions)
    picked = {item.num_positions: item for item in (by_length[int(q * (len(by_length) - 1))] for q in QUANTILES)}
    return {f"{size}x{length}": [[item] * size] for size in (1, BATCH) for length, item in sorted(picked.items())}


def _run(session: Session, calls: ModelCalls, batches: Sequence[Sequence[ModelInput]]) -> None:
    for batch in batches:
        for outcome in calls.run(session, batch, calls.plan(session, batch)):
            if isinstance(outcome, Exception):
                raise OperatorError(f"the engine fails while it is timed: {outcome}") from outcome


def _times(
    session: Session, calls: ModelCalls, works: Mapping[str, Sequence[Sequence[ModelInput]]]
) -> dict[str, float]:
    times = {}
    for work, batches in works.items():
        started = time.perf_counter()
        _run(session, calls, batches)
        times[work] = time.perf_counter() - started
    return times
