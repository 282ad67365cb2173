"""`build --weight`, and that `configure` finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ts_handlers.cli import main
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.torchserve.archives import read_archives

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs


def arguments(checkpoint: Path, store: Path, *options: str) -> list[str]:
    return ["build", str(checkpoint), "--task", "text-classification", "--name", "m", "--output", str(store), *options]


def test_the_weight_of_a_build_is_what_configure_reads(model_dirs: ModelDirs, tmp_path: Path) -> None:
    assert main(arguments(model_dirs.checkpoint("tiny-distilbert"), tmp_path, "--weight", "2.5")) == 0
    assert json.loads((tmp_path / "m.build.json").read_text())["weight"] == 2.5

    report = read_reports(tmp_path, read_archives(tmp_path))["m", "1.0"]
    assert report.weight == 2.5
    assert report.rss_mb is not None
    assert report.latency_ms is not None


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "much", "1e9"])
def test_a_weight_that_is_none_is_refused(weight: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments(tmp_path, tmp_path, f"--weight={weight}"))

    assert f"{weight!r} is not a number above 0 and up to 1,000,000" in capsys.readouterr().err
