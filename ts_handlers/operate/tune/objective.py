"""What makes one measurement better than another: requests per second, a bound on the p99, or the p99 at a given rate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

KEEPS_UP_SHARE = 0.97
"""A server keeps up with a rate if it answers so much of it: the last requests of a measurement are still on their way."""

MIN_REQUESTS = 50
"""Requests of a trial at a rate, at least: a single late one must not decide whether a server keeps up."""

MAX_ERROR_SHARE = 0.01
"""A setting under which more of the requests fail is no choice."""

MIN_GAIN = 1.03
"""A smaller gain is not worth another setting, and not told from noise by two blocks each."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What counts of one load.

    Attributes:
        requests_per_second: Requests that were answered with 2xx, a second.
        p50_ms: Median latency.
        p90_ms: 90th percentile of the latency.
        p99_ms: 99th percentile of the latency.
        num_ok: Requests that were answered with 2xx.
        errors: The other requests, by status or by what happened to them.
    """

    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    num_ok: int
    errors: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def num_errors(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())

    @property
    def error_share(self) -> float:
        """Failed requests among all; 1 if there were none."""
        total = self.num_ok + self.num_errors
        return self.num_errors / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Objective:
    """What the operator wants.

    Attributes:
        slo_p99_ms: Bound on the 99th percentile; None: none.
        rate: Requests per second of an open loop; None: a closed loop, which asks for as many as it can.
    """

    slo_p99_ms: float | None = None
    rate: float | None = None

    def describe(self) -> str:
        """Say what is looked for."""
        slo = "" if self.slo_p99_ms is None else f" with a p99 of at most {self.slo_p99_ms:g} ms"
        if self.rate is None:
            return f"the most requests per second{slo}"
        return f"the lowest p99 at {self.rate:g} requests per second{slo}"

    def is_met(self, measured: Measurement) -> bool:
        """Say whether a measurement keeps to the bound and keeps up with the rate."""
        if self.slo_p99_ms is not None and measured.p99_ms > self.slo_p99_ms:
            return False
        return self.rate is None or measured.requests_per_second >= KEEPS_UP_SHARE * self.rate

    def score(self, measured: Measurement) -> tuple[bool, float]:
        """Return what orders measurements, larger is better: first those that meet the objective.

        The others are ordered by what they miss it by: a rate nobody keeps up with by requests per second, a bound
        nobody meets by p99.
        """
        if self.is_met(measured):
            return True, measured.requests_per_second if self.rate is None else -measured.p99_ms
        keeps_up = self.rate is None or measured.requests_per_second >= KEEPS_UP_SHARE * self.rate
        return False, -measured.p99_ms if keeps_up else measured.requests_per_second - 1e12

    def gain(self, measured: Measurement, default: Measurement) -> float:
        """Return how many times better a measurement is than the default's: above 1 is better."""
        if self.counts_p99(measured, default):
            return default.p99_ms / measured.p99_ms if measured.p99_ms else 1.0
        return measured.requests_per_second / default.requests_per_second if default.requests_per_second else math.inf

    def counts_p99(self, *measured: Measurement) -> bool:
        """Say whether a gain is of the p99, because of a rate all keep up with or a bound one of them misses."""
        if self.rate is None:
            return not all(self.is_met(each) for each in measured)
        return all(each.requests_per_second >= KEEPS_UP_SHARE * self.rate for each in measured)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the final comparison says.

    Attributes:
        is_better: Whether the contender is chosen.
        is_met: Whether the chosen setting meets the objective in its blocks together.
        gain: How many times better the contender is; None where only one of them meets the objective.
        reason: Why, in one sentence.
        is_of_p99: Whether the gain is of the p99, not of the requests per second.
    """

    is_better: bool
    is_met: bool
    gain: float | None
    reason: str
    is_of_p99: bool = False

    def describe_gain(self) -> str | None:
        """Say how many times better the contender is, and in what."""
        if self.gain is None:
            return None
        return f"{self.gain:.2f} times {'as low a p99' if self.is_of_p99 else 'the requests per second'}"


def judge(objective: Objective, contender: Sequence[Measurement], default: Sequence[Measurement]) -> Verdict:
    """Compare the blocks of two settings, measured in turn.

    The contender is better if its worst block is better than the default's best and the gain is MIN_GAIN or more; or if
    all of its blocks meet the objective and none of the default's does. Else the default is kept: the simplest wins.
    """
    met, default_met = ([objective.is_met(block) for block in blocks] for blocks in (contender, default))
    if all(met) and not any(default_met):
        return Verdict(is_better=True, is_met=True, gain=None, reason="only the contender meets the objective")
    if all(default_met) and not any(met):
        return Verdict(is_better=False, is_met=True, gain=None, reason="only the default meets the objective")
    ours, theirs = mean(contender), mean(default)
    gain, is_of_p99 = objective.gain(ours, theirs), objective.counts_p99(ours, theirs)
    apart = min(map(objective.score, contender)) > max(map(objective.score, default))
    if apart and gain >= MIN_GAIN:
        return Verdict(True, objective.is_met(ours), gain, "its worst block beats the default's best", is_of_p99)
    within = "the gain is within noise" if gain > 1 else "the default is not beaten"
    return Verdict(False, objective.is_met(theirs), gain, f"{within}: the default is kept", is_of_p99)


def mean(blocks: Sequence[Measurement]) -> Measurement:
    """Return the mean of blocks of equal length."""
    count = len(blocks)
    return Measurement(
        requests_per_second=sum(block.requests_per_second for block in blocks) / count,
        p50_ms=sum(block.p50_ms for block in blocks) / count,
        p90_ms=sum(block.p90_ms for block in blocks) / count,
        p99_ms=sum(block.p99_ms for block in blocks) / count,
        num_ok=sum(block.num_ok for block in blocks),
        errors=dict(sum((Counter(block.errors) for block in blocks), Counter())),
    )
