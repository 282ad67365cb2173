"""What surrounds a server: its signals (in processes of their own, which may end) and what its load says."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.unit.operate.results_of import measured
from ts_handlers.operate.tune.conditions import speed_variables
from ts_handlers.operate.tune.trial import failure

BEGIN = """
import signal
import sys
from ts_handlers.operate.stop_signals import STOP_SIGNALS
from ts_handlers.operate.tune.trial import Stopper
for number in STOP_SIGNALS:  # what a script starts in the background ignores SIGINT
    signal.signal(number, signal.default_int_handler)

def is_interrupted(work, *arguments):
    try:
        work(*arguments)
    except KeyboardInterrupt:
        return True
    return False

def wait(stopper, *numbers):
    with stopper.waiting():
        for number in numbers:
            signal.raise_signal(number)
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
def test_a_signal_ends_a_wait_at_once_and_the_next_change_nothing(number: signal.Signals) -> None:
    body = """
number = int(sys.argv[1])
with Stopper() as stopper:
    print(is_interrupted(stopper.check), is_interrupted(wait, stopper))
    print(is_interrupted(wait, stopper, number))
    print(is_interrupted(signal.raise_signal, number), is_interrupted(signal.raise_signal, signal.SIGTERM))
"""
    assert printed(body, int(number)) == ["False False", "True", "False False", "[True, True, True]"]


def test_a_signal_outside_of_a_wait_is_raised_where_it_is_asked_for() -> None:
    body = """
with Stopper() as stopper:
    print(is_interrupted(signal.raise_signal, signal.SIGTERM))
    print(is_interrupted(stopper.check), is_interrupted(wait, stopper))
"""
    assert printed(body) == ["False", "True True", "[True, True, True]"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Stopper() as stopper:
    print(is_interrupted(wait, stopper, signal.SIGHUP))
"""
    assert printed(body) == ["False", "[True, True, False]"]


def test_a_load_with_too_many_errors_is_no_measurement() -> None:
    assert failure(measured(10)) is None
    assert failure(replace(measured(10), num_ok=99, errors={"503": 1})) is None
    broken = replace(measured(10), num_ok=3, errors={"503": 1}, first_error="503 full")
    assert failure(broken) == "25% of the requests failed (1 x 503): 503 full"
    assert "none was answered" in str(failure(replace(broken, num_ok=0, errors={})))


@pytest.mark.parametrize("name", ["LD_PRELOAD", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TS_HANDLERS_WORKERS"])
def test_variables_that_change_the_speed_are_facts(name: str) -> None:
    assert speed_variables({name: "3", "HOME": "x"}) == f"{name}=3"
    assert speed_variables({name: ""}) == ""
