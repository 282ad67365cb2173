from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.operate.results_of import measured
from ts_handlers.operate.tune.results import speed_variables
from ts_handlers.operate.tune.session import failure


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
