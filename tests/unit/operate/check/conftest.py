from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.unit.operate.check.sites import YAML, Site
from ts_handlers.cli import main
from ts_handlers.operate.torchserve import properties


@pytest.fixture(scope="session")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("configured")
    model = {"modelName": "mini", "modelVersion": "1.0", "handler": "echo.py:handle", "configFile": "model-config.yaml"}
    with zipfile.ZipFile(store / "mini-1.0.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        archive.writestr("model-config.yaml", YAML)
    assert main(["configure", str(store), "--cpus", "2", "--memory-mb", "8192"]) == 0
    return store


@pytest.fixture
def site(configured: Path, tmp_path: Path) -> Site:
    """A store as configure leaves it, which a test may change."""
    store = Path(shutil.copytree(configured, tmp_path / "store"))
    values = properties.parse((store / "config.properties").read_text())
    return Site(store, {key: value.replace(str(configured), str(store)) for key, value in values.items()})
