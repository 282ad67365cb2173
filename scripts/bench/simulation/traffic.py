"""A day of requests: a curve over the hours, bursts on top of it, and a night of short batches with nothing in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrives: a Poisson process whose rate a hidden Markov chain changes (MMPP), second by second.

    Attributes:
        peak_rate: Requests a second at the top of the daily curve, without a burst.
        open_hour: When the curve leaves zero.
        close_hour: When it is back there.
        calm_seconds: Mean time between bursts.
        burst_seconds: Mean length of a burst.
        burst_factors: Least and greatest factor of the rate in a burst; each has its own, uniformly drawn.
        night_gap_seconds: Mean time without any request between the night's batches.
        night_batch_seconds: Mean length of such a batch.
        night_rate: Requests a second in it.
        seed: The same seed gives the same requests.
    """

    peak_rate: float = 45.0
    open_hour: float = 6.0
    close_hour: float = 22.0
    calm_seconds: float = 1200.0
    burst_seconds: float = 90.0
    burst_factors: tuple[float, float] = (2.0, 4.0)
    night_gap_seconds: float = 1500.0
    night_batch_seconds: float = 60.0
    night_rate: float = 4.0
    seed: int = 7

    def rates(self, seconds: int = DAY_SECONDS) -> NDArray[np.float64]:
        """Return the rate of each second from midnight on, (seconds,), in requests a second."""
        rng = np.random.default_rng(self.seed)
        hours = (np.arange(seconds) + 0.5) / HOUR_SECONDS % 24
        phase = np.clip((hours - self.open_hour) / (self.close_hour - self.open_hour), 0.0, 1.0)
        curve = self.peak_rate * np.sin(np.pi * phase) ** 1.5
        burst = _on_off(rng, seconds, self.calm_seconds, self.burst_seconds)
        low, high = self.burst_factors
        factors = 1.0 + burst * (rng.uniform(low, high, seconds)[_starts(burst)] - 1.0)
        night = _on_off(rng, seconds, self.night_gap_seconds, self.night_batch_seconds) > 0
        return np.where(curve > 0, curve * factors, np.where(night, self.night_rate, 0.0))

    def arrivals(self, seconds: int = DAY_SECONDS) -> NDArray[np.float64]:
        """Return when each request arrives, ascending, in seconds from midnight."""
        return arrivals(self.rates(seconds), self.seed + 1)


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


def _starts(states: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each second where its stay in a state began: what is drawn there holds for the stay."""
    changes = np.flatnonzero(np.diff(states)) + 1
    starts = np.zeros(len(states), dtype=np.int64)
    starts[changes] = changes
    return np.maximum.accumulate(starts)
