from __future__ import annotations

from importlib.metadata import version

import pytest

from ts_handlers.cpu import cpu_budget
from ts_handlers.operate.tune.subject import machine_facts, speed_variables


@pytest.mark.parametrize("package", ["numpy", "tokenizers", "transformers"])
def test_the_versions_of_what_reads_and_computes_are_facts(package: str) -> None:
    assert f"{package} {version(package)}" in machine_facts(cpu_budget())["versions"].split(", ")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TS_HANDLERS_WORKERS"])
def test_variables_that_change_the_speed_are_facts(name: str) -> None:
    assert speed_variables({name: "3", "HOME": "x"}) == f"{name}=3"
    assert speed_variables({name: ""}) == ""


def test_the_environment_is_part_of_what_must_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_HANDLERS_DEBUG", "7")
    assert "TS_HANDLERS_DEBUG=7" in machine_facts(cpu_budget())["environment"]
