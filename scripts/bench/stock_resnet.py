"""The stock side for pictures: TorchServe's built-in image_classifier with torchvision's ResNet-50, as its docs have it."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

from bench.resnet import STOCK_HANDLER, ResNet
from bench.server import Launch
from bench.stock import StockSettings, StockSide
from bench.venv import Venv


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
        files, config = self._files, self._start_over()
        self._archive(STOCK_HANDLER, config, files.weights, [files.labels], "--model-file", files.model_file)

    def launch(self) -> Launch:
        """Start it as the text side is, and ask for a picture: the built-in handler reads a text as base64."""
        return dataclasses.replace(super().launch(), probe=base64.b64encode(self._probe.read_bytes()).decode())
