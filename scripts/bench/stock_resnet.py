"""The stock side for pictures: TorchServe's built-in image_classifier with torchvision's ResNet-50, as its docs have it."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from pathlib import Path

from bench.resnet import STOCK_HANDLER, ResNet
from bench.server import Launch
from bench.stock import MAX_BATCH_DELAY_MS, MODEL, VERSION, StockSettings, StockSide
from bench.venv import Venv

_MODEL_CONFIG = """\
minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch_size}
maxBatchDelay: {max_batch_delay_ms}
"""


class StockResNetSide(StockSide):
    """The built-in handler with one choice of settings.

    Args:
        settings: Workers, batch size and threads.
        venv: Its environment.
        files: The model.
        probe: A picture to ask a new server for.
        work_dir: Where its archives and logs go.
    """

    def __init__(self, settings: StockSettings, *, venv: Venv, files: ResNet, probe: Path, work_dir: Path) -> None:
        super().__init__(settings, pytorch_serve=Path(), venv=venv, model=files.weights, work_dir=work_dir / "resnet")
        self._files, self._probe = files, probe

    def prepare(self) -> None:
        """Archive state dict and model file with the built-in handler."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        config = self._folder / "model-config.yaml"
        config.write_text(
            _MODEL_CONFIG.format(
                workers=self.settings.workers,
                batch_size=self.settings.batch_size,
                max_batch_delay_ms=MAX_BATCH_DELAY_MS,
            ),
            encoding="utf-8",
        )
        self._venv.run(
            self._venv.python.with_name("torch-model-archiver"),
            *("--model-name", MODEL, "--version", VERSION, "--handler", str(STOCK_HANDLER)),
            *("--serialized-file", str(self._files.weights), "--model-file", str(self._files.model_file)),
            *("--extra-files", str(self._files.labels)),
            *("--config-file", str(config), "--export-path", str(self._store)),
        )

    def launch(self) -> Launch:
        """Start it as the text side is, and ask for a picture: the built-in handler reads a text as base64."""
        return dataclasses.replace(super().launch(), probe=base64.b64encode(self._probe.read_bytes()).decode())
