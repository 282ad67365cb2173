from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.build.image_forms import LABELS, MODEL_FILE, PREPROCESSOR


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with labels and preprocessing."""
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / "model.py").write_text(MODEL_FILE)
    return folder
