"""`configure`, run in this process, and what it wrote."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.cli import main
from ts_handlers.operate.torchserve import properties


def read(file: Path) -> dict[str, str]:
    return properties.parse(file.read_text(encoding=properties.ENCODING))


def configured(store: Path, *options: str) -> dict[str, str]:
    assert main(["configure", str(store), *options]) == 0
    return read(store / "config.properties")
