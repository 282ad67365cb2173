"""A day of requests: a curve over the hours, bursts on top of it, and a night of short batches with nothing in between.

They are a Poisson process whose rate a hidden Markov chain changes (MMPP), second by second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HOUR_SECONDS = 3_600
SEED = 7

PEAK_RATE = 45.0
"""Requests a second at the top of the daily curve, without a burst."""

OPEN_HOUR, CLOSE_HOUR = 6.0, 22.0
"""When the curve leaves zero, and when it is back there."""

CALM_SECONDS, BURST_SECONDS = 1200.0, 90.0
"""Mean time between bursts, and mean length of a burst."""

BURST_FACTORS = (2.0, 4.0)
"""Least and greatest factor of the rate in a burst; each has its own, uniformly drawn."""

NIGHT_GAP_SECONDS, NIGHT_BATCH_SECONDS, NIGHT_RATE = 1500.0, 60.0, 4.0
"""Mean time without any request between the night's batches, mean length of such a batch, requests a second in it."""


def day(seconds: int, seed: int = SEED) -> NDArray[np.float64]:
    """Return when each request of so many seconds from midnight on arrives, ascending."""
    rng = np.random.default_rng(seed)
    hours = (np.arange(seconds) + 0.5) / HOUR_SECONDS % 24
    phase = np.clip((hours - OPEN_HOUR) / (CLOSE_HOUR - OPEN_HOUR), 0.0, 1.0)
    curve = PEAK_RATE * np.sin(np.pi * phase) ** 1.5
    burst = _on_off(rng, seconds, CALM_SECONDS, BURST_SECONDS)
    changes = np.flatnonzero(np.diff(burst, prepend=burst[0]))
    starts = np.zeros(seconds, dtype=np.int64)
    starts[changes] = changes
    drawn = rng.uniform(*BURST_FACTORS, seconds)[np.maximum.accumulate(starts)]  # one factor for each burst
    night = _on_off(rng, seconds, NIGHT_GAP_SECONDS, NIGHT_BATCH_SECONDS) * NIGHT_RATE
    return arrivals(np.where(curve > 0, curve * (1.0 + burst * (drawn - 1.0)), night), seed + 1)


def arrivals(rates: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Draw a Poisson process whose rate is constant within each second.

    Args:
        rates: Requests a second in each second, (seconds,).
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rates)
    times = np.repeat(np.arange(len(rates), dtype=np.float64), counts) + rng.random(int(counts.sum()))
    return np.sort(times)


def _on_off(rng: np.random.Generator, seconds: int, off_mean: float, on_mean: float) -> NDArray[np.float64]:
    """Return a chain of two states, 0 and 1, with times in each that are exponential, rounded up to seconds."""
    pieces: list[NDArray[np.float64]] = []
    length, state = 0, 0
    while length < seconds:
        stay = int(np.ceil(rng.exponential(on_mean if state else off_mean)))
        pieces.append(np.full(stay, float(state)))
        length, state = length + stay, 1 - state
    return np.concatenate(pieces)[:seconds]
