"""The two models of these benchmarks, MiniLM (text) and ResNet-50 (pictures), for both sides."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.contender import Contender, Ours, Stock
from bench.material import download_sentences, make_model
from bench.ours import BUILD_SECONDS, TASK
from bench.pictures import make_pictures
from bench.process import run
from bench.resnet import OUR_HANDLER, ResNet, make_resnet, resnet_venv
from bench.server import TS_HANDLERS, clean_env
from bench.stock import StockSettings, StockSide, stock_venv
from bench.stock_resnet import StockResNetSide

MODELS = ("minilm", "resnet")

_RESNET_CONFIG = """\
responseTimeout: 120
startupTimeout: 120
handler:
  runtime: {backend: onnx, precision: fp32}
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A model and what it is sent.

    Attributes:
        name: One of MODELS.
        payloads: A file of sentences, or a folder of pictures.
        ours: Our side.
        stock: The stock side; None if it was not asked for.
    """

    name: str
    payloads: Path
    ours: Ours
    stock: Contender | None

    def sides(self) -> tuple[Contender, ...]:
        """Return the sides, ours first."""
        return (self.ours,) if self.stock is None else (self.ours, self.stock)


@dataclass(frozen=True, slots=True)
class StockOptions:
    """How the stock side is run.

    Attributes:
        pytorch_serve: A checkout of pytorch/serve, for the text model's handler; None if that is not run.
        omp_num_threads: OMP_NUM_THREADS; None: unset, as TorchServe ships.
    """

    pytorch_serve: Path | None
    omp_num_threads: int | None


def make(name: str, work_dir: Path, stock: StockOptions | None, precision: str = "int8") -> Model:
    """Make what a model needs: environments, files and payloads, kept in `work_dir` for the next run."""
    return _minilm(work_dir, stock, precision) if name == "minilm" else _resnet(work_dir, stock)


def _minilm(work_dir: Path, stock: StockOptions | None, precision: str) -> Model:
    venv = stock_venv(work_dir)
    model = make_model(venv, work_dir)

    def archive(store: Path) -> None:
        command: list[str | Path] = [*TS_HANDLERS, "build", model, "--task", TASK, "--name", "minilm"]
        command += ["--precision", precision, "--output", store]
        print(f"building minilm, {precision}", flush=True)
        run(command, log=store / "build.log", env=clean_env(), cwd=store, timeout_seconds=BUILD_SECONDS)

    def side(settings: StockSettings) -> StockSide:
        checkout = (stock.pytorch_serve if stock else None) or Path()
        return StockSide(settings, pytorch_serve=checkout, venv=venv, model=model, work_dir=work_dir)

    return Model(
        name="minilm",
        payloads=download_sentences(work_dir),
        ours=Ours("minilm", folder=work_dir / "ours-minilm", archive=archive),
        stock=Stock(side, stock.omp_num_threads) if stock else None,
    )


def _resnet(work_dir: Path, stock: StockOptions | None) -> Model:
    venv = resnet_venv(work_dir)
    pictures = make_pictures(work_dir / "pictures")
    files = make_resnet(venv, work_dir, pictures)

    probe = min(pictures.iterdir())

    def side(settings: StockSettings) -> StockSide:
        return StockResNetSide(settings, venv=venv, files=files, probe=probe, work_dir=work_dir)

    return Model(
        name="resnet",
        payloads=pictures,
        ours=Ours("resnet", folder=work_dir / "ours-resnet", archive=lambda store: _archive(files, store)),
        stock=Stock(side, stock.omp_num_threads) if stock else None,
    )


def _archive(files: ResNet, store: Path) -> None:
    """Archive the ONNX model with the benchmark's own handler, as the README has it for a team's."""
    config = store / "model-config.yaml"
    config.write_text(_RESNET_CONFIG, encoding="utf-8")
    scratch = store / "tmp"
    scratch.mkdir()
    command: list[str | Path] = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "resnet", "--version", "1.0"),
        *("--serialized-file", files.onnx, "--handler", OUR_HANDLER, "--extra-files", files.labels),
        *("--config-file", config, "--export-path", store),
    ]
    run(command, log=store / "archive.log", env=clean_env(TMPDIR=str(scratch)), cwd=store, timeout_seconds=300.0)
    shutil.rmtree(scratch)
