"""What `configure` writes, run in this process or made of a plan."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.cli import main
from ts_handlers.operate.configure.config_file import make_entries
from ts_handlers.operate.configure.options import Layout
from ts_handlers.operate.configure.plan import Plan
from ts_handlers.operate.torchserve import properties


def read(file: Path) -> dict[str, str]:
    return properties.parse(file.read_text(encoding=properties.ENCODING))


def configured(store: Path, *options: str) -> dict[str, str]:
    assert main(["configure", str(store), *options]) == 0
    return read(store / "config.properties")


def values_of(plan: Plan) -> dict[str, str]:
    return {entry.key: entry.value for entry in make_entries(plan, Layout(Path("/store"), Path("/metrics.yaml")))}
