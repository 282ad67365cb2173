"""Signals, in processes of their own: one that goes wrong ends its process, and is not to end the tests."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ts_handlers.operate.tune import stop

BEGIN = f"""
import signal
import sys
from {stop.__name__} import Stopper
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
for number in STOP_SIGNALS:  # what a script starts in the background ignores SIGINT
    signal.signal(number, signal.default_int_handler)

def is_interrupted(work, *arguments):
    try:
        work(*arguments)
    except KeyboardInterrupt:
        return True
    return False
"""
END = """
print([signal.getsignal(number) is signal.default_int_handler for number in STOP_SIGNALS])
"""


def printed(body: str, *words: object) -> list[str]:
    """Run a body between BEGIN and END, and return the lines that it prints."""
    command = [sys.executable, "-c", BEGIN + body + END, *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_change_nothing(number: signal.Signals) -> None:
    body = """
number = int(sys.argv[1])
with Stopper() as stopper:
    print(stopper.is_requested)
    print([is_interrupted(signal.raise_signal, each) for each in (number, number, signal.SIGTERM)])
    print(stopper.is_requested)
"""
    assert printed(body, int(number)) == ["False", "[True, False, False]", "True", "[True, True, True]"]


def test_what_was_swallowed_is_raised_again() -> None:
    body = """
with Stopper() as stopper:
    print(is_interrupted(stopper.check))
    print(is_interrupted(signal.raise_signal, signal.SIGTERM))
    print(is_interrupted(stopper.check))
"""
    assert printed(body) == ["False", "True", "True", "[True, True, True]"]


def test_what_comes_behind_a_shield_is_raised_after_it() -> None:
    body = """
def shielded(stopper):
    with stopper.shield():
        signal.raise_signal(signal.SIGINT)
        print("finished")

with Stopper() as stopper:
    print(is_interrupted(shielded, stopper))
    print(is_interrupted(shielded, stopper))  # asked for already: nothing is raised twice
"""
    assert printed(body) == ["finished", "True", "finished", "False", "[True, True, True]"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Stopper() as stopper:
    print(is_interrupted(signal.raise_signal, signal.SIGHUP), stopper.is_requested)
"""
    assert printed(body) == ["False False", "[True, True, False]"]
