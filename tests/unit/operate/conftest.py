from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stand_in import torch_stand_in


@pytest.fixture
def write_mar(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive as torch-model-archiver does: a manifest, a handler and, where `config` is given, a yaml."""

    def write(name: str = "echo", version: str = "1.0", *, config: str | None = None, **files: str) -> Path:
        store = tmp_path / "store"
        store.mkdir(exist_ok=True)
        path = store / f"{name}-{version}.mar"
        model = {"modelName": name, "modelVersion": version, "handler": "echo_handler.py:handle"}
        if config is not None:
            model["configFile"] = "model-config.yaml"
            files["model-config.yaml"] = config
        manifest = {
            "createdOn": "01/01/2026 00:00:00",
            "runtime": "python",
            "model": model,
            "archiverVersion": "0.12.0",
        }
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            for file_name, text in files.items():
                archive.writestr(file_name, text)
        return path

    return write


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.properties"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers of this test's servers start without torch, which their handlers do not need."""
    monkeypatch.setenv("PYTHONPATH", torch_stand_in(tmp_path / "stand-in"))
