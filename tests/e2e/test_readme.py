"""The README's Python runs as it stands."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_the_handler_and_its_test_run(store: Path, readme_python: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(store / "sentiment.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    handler, test = readme_python
    (tmp_path / "loud_handler.py").write_text(handler, encoding="utf-8")
    (tmp_path / "try_it.py").write_text(test, encoding="utf-8")
    subprocess.run([sys.executable, "try_it.py"], cwd=tmp_path, check=True, timeout=120)
