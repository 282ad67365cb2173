from __future__ import annotations

import pytest

from ts_handlers.operate.configure.kubernetes.thresholds import MAX_UTILIZATION, utilization_of, waiting


def test_waiting_is_that_of_erlang() -> None:
    assert waiting(1, 0.5) == pytest.approx(1.0)  # M/M/1: utilization / (1 - utilization)
    assert waiting(1, 0.8) == pytest.approx(4.0)
    assert waiting(2, 0.5) == pytest.approx(1 / 3)  # M/M/2: utilization^2 / (1 - utilization^2)
    assert waiting(2, 0.9) == pytest.approx(0.81 / 0.19)
    assert utilization_of(1) == pytest.approx(0.5)
    assert utilization_of(2) == pytest.approx(2**-0.5)
    assert utilization_of(500) == MAX_UTILIZATION
