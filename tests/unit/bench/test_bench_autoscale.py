from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.autoscale import Phase, PhaseResult, _phase


def result(*workers: int, **others: int) -> PhaseResult:
    seen = [(float(second), count) for second, count in enumerate(workers)]
    return PhaseResult(Phase(60, 5), 300, 298, 2, dict(others), 9.4, None, seen)


def test_workers_that_turn_round_within_a_phase_are_flapping() -> None:
    assert not result(1, 2, 3).is_flapping
    assert not result(3, 1).is_flapping
    assert not result(2).is_flapping
    assert result(1, 2, 1).is_flapping


def test_a_phase_is_one_line() -> None:
    assert result(1, 2, 1).describe() == (
        "60 s at 5/s: sent 300, answered 298, refused (503) 2, lost 0; p50 9 ms, p99 0 ms; workers 1 -> 2 -> 1 FLAPPING"
    )
    assert "lost {'timeout': 1}" in result(1, timeout=1).describe()


def test_phases_are_seconds_and_a_rate() -> None:
    assert _phase("90:2.5") == Phase(90.0, 2.5)
    with pytest.raises(argparse.ArgumentTypeError, match="'90' is no phase; write SECONDS:RATE"):
        _phase("90")
