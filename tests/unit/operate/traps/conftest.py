from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.traps.sites import YAML, Site
from ts_handlers.cli import main
from ts_handlers.operate.torchserve import properties


@pytest.fixture
def site(write_mar: Callable[..., Path]) -> Site:
    store = write_mar("mini", "1.0", config=YAML).parent
    assert main(["configure", str(store), "--cpus", "2", "--memory-mb", "8192"]) == 0
    text = (store / "config.properties").read_text()
    return Site(store, dict(properties.parse(text)))
