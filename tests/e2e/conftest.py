from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.model_dirs import TASK_OF
from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

ROOT = Path(__file__).parents[2]

SERVED = {
    "sentiment": "tiny-distilbert",
    "embeddings": "minilm",
    "entities": "tiny-roberta",
    "answers": "tiny-roberta-answers",
}
"""Name of each model that is served -> its checkpoint; one for each task, small but for MiniLM itself."""


def run_cli(*words: object) -> None:
    """Run a `ts-handlers` command in this process."""
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="session")
def readme_python() -> list[str]:
    """The Python blocks of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def store(model_dirs: ModelDirs, readme_python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one archive for each task, and one made by hand as the README shows."""
    folder = tmp_path_factory.mktemp("store")
    for name, kind in SERVED.items():
        run_cli(
            *("build", model_dirs.checkpoint(kind), "--task", TASK_OF[kind], "--name", name),
            *("--precision", "int8" if kind == "minilm" else "fp32", "--output", folder),
        )
    archive_by_hand(folder, readme_python[0], tmp_path_factory.mktemp("by-hand"))
    return folder


def archive_by_hand(store: Path, handler: str, folder: Path) -> None:
    """Run torch-model-archiver on a handler file and the files of a built model."""
    with zipfile.ZipFile(store / "sentiment.mar") as archive:
        archive.extractall(folder)
    (folder / "loud_handler.py").write_text(handler, encoding="utf-8")
    extra = ",".join(str(folder / name) for name in ("tokenizer.json", "tokenizer_config.json", "index_to_name.json"))
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "loud", "--version", "1.0"),
        *("--serialized-file", folder / "model.onnx", "--handler", folder / "loud_handler.py"),
        *("--extra-files", extra, "--config-file", folder / "model-config.yaml", "--export-path", store),
    ]
    subprocess.run([str(word) for word in command], check=True, timeout=120)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[BackgroundServer]:
    """A real TorchServe with every archive of the store, whose batches wait long enough to fill."""
    run_cli("configure", store, "--batch-size", 16, "--max-batch-delay-ms", 400, *free_port_options())
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,  # short: worker sockets are in it
        BackgroundServer(
            store, environ={**os.environ, "TEMP": temporary, "TS_HANDLERS_SCOPE": Path(temporary).name}
        ) as running,
    ):
        yield running
    shutil.rmtree(store)
