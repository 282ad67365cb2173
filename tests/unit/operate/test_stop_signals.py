from __future__ import annotations

import signal

import pytest

from ts_handlers.operate.stop_signals import STOP_SIGNALS, StopRequested, stop_on_signals, stop_when_asked


def test_the_first_two_signals_are_raised_and_no_other() -> None:
    """The first asks to end, the second not to wait for it; a third would interrupt the cleaning up."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        for _ in range(2):
            with pytest.raises(StopRequested):
                signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_is_noted_is_raised_where_it_is_asked_for(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # what a script starts in the background ignores SIGINT
    try:
        with stop_when_asked() as check:
            check()
            signal.raise_signal(number)
            signal.raise_signal(number)
            with pytest.raises(StopRequested):
                check()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_when_asked() as check:
            signal.raise_signal(signal.SIGHUP)
            check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
