from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ts_handlers.operate.tune.stop import Stopper


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    original = [signal.getsignal(number) for number in numbers]
    for number in numbers:  # what a script starts in the background ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, original, strict=True):
        signal.signal(number, handler)
    assert after == [signal.default_int_handler] * len(numbers)


def send(number: signal.Signals) -> None:
    signal.raise_signal(number)  # to this thread: one to the process may reach another thread, and this one too late


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_change_nothing(number: signal.Signals) -> None:
    with Stopper() as stopper:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)
        send(signal.SIGTERM)
        assert stopper.is_requested


def test_what_comes_behind_a_shield_is_raised_after_it() -> None:
    finished = []

    def shielded(stopper: Stopper) -> None:
        with stopper.shield():
            send(signal.SIGINT)
            finished.append(True)

    with Stopper() as stopper:
        with pytest.raises(KeyboardInterrupt):
            shielded(stopper)
        assert finished == [True]
        shielded(stopper)  # asked for already: nothing is raised twice


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopper() as stopper:
            send(signal.SIGHUP)
            assert not stopper.is_requested
    finally:
        signal.signal(signal.SIGHUP, before)
