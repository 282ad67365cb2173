"""The README's Python runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = pytest.mark.e2e


def test_the_handler_and_its_test_run(model_dirs: ModelDirs, readme_python: list[str], tmp_path: Path) -> None:
    (tmp_path / "unpacked").symlink_to(model_dirs.get("tiny-distilbert"))
    handler, test = readme_python
    (tmp_path / "loud_handler.py").write_text(handler, encoding="utf-8")
    (tmp_path / "try_it.py").write_text(test, encoding="utf-8")
    subprocess.run([sys.executable, "try_it.py"], cwd=tmp_path, check=True, timeout=120)
