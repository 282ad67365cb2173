from __future__ import annotations

import signal

import pytest

from ts_handlers.operate.stop_signals import StopRequested, stop_on_signals


def test_the_first_two_signals_are_raised_and_no_other() -> None:
    """The first asks to end, the second not to wait for it; a third would interrupt the cleaning up."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        for _ in range(2):
            with pytest.raises(StopRequested):
                signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
