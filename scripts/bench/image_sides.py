"""The settings of the experiment with images: a process for each image, stock TorchServe, and ours."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.contender import Contender, Ours, Stock
from bench.image_client import Sent, send_images
from bench.process import BenchError, run
from bench.resnet import ResNet
from bench.server import TS_HANDLERS, clean_env
from bench.stock import StockSettings, StockSide
from bench.stock_resnet import StockResNetSide
from bench.usage import Usage
from bench.venv import Venv

ONE_IMAGE = Path(__file__).with_name("one_image.py")

PROCESS, STOCK, OURS = "one process an image", "stock", "ours"
"""The groups of settings, in the order they are shown."""

_BUILD_SECONDS = 1800.0
_ONE_IMAGE_SECONDS = 120.0
_FEW = 2
"""Images in processes of their own before those that count: they bring the files into the page cache."""

# Weights are random: lower precision changes answers more than it would a trained model's.
_LENIENT = ("--tolerance", "0.5")
_UNJUDGED = ("--min-mean-cosine", "0", "--min-cosine", "0")
_NUM_CALIBRATION = 20
"""Pictures that INT8 is calibrated on: four of five of them, and compared on the others."""
PRECISIONS: Mapping[str, Sequence[str]] = {
    "fp32": ("--precision", "fp32"),
    "bf16": ("--precision", "bf16", "--backend", "torch", *_LENIENT),
    "int8": ("--precision", "int8", "--quantizer", "static-percentile", *_LENIENT, *_UNJUDGED),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What every setting does.

    Attributes:
        pictures: JPEG files, taken in turn.
        num_images: How many are classified.
        clients: Requests in flight, of a server.
    """

    pictures: Sequence[Path]
    num_images: int
    clients: int

    @property
    def bodies(self) -> list[bytes]:
        """The files' contents."""
        return [picture.read_bytes() for picture in self.pictures]


@dataclass(frozen=True, slots=True)
class Done:
    """What one block took.

    Attributes:
        sent: Time, errors and labels.
        cpu_s: CPU time of all its processes; not of the load generator.
        peak_mib: Most memory of all its processes together.
        start_s: Seconds until a server was ready; none of them are part of the time.
    """

    sent: Sent
    cpu_s: float
    peak_mib: float
    start_s: float


class Setting(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str:
        """Name of the setting."""

    @property
    def group(self) -> str:
        """PROCESS, STOCK or OURS."""

    def prepare(self) -> None:
        """Make what it needs, unless it is there."""

    def classify(self, work: Work) -> Done:
        """Classify the images."""


@dataclass(frozen=True, slots=True)
class ProcessSetting:
    """A process for each image, some of them at the same time.

    Attributes:
        concurrency: How many.
        venv: Their environment.
        files: The model.
    """

    concurrency: int
    venv: Venv
    files: ResNet
    group: str = PROCESS

    @property
    def name(self) -> str:
        """Name of the setting."""
        return f"process-{self.concurrency}"

    def prepare(self) -> None:
        """Do nothing: environment and model are there."""

    def classify(self, work: Work) -> Done:
        """Start a process for each image."""
        self._classify(work, _FEW)
        with Usage() as usage:
            sent = self._classify(work, work.num_images)
        return Done(sent, usage.cpu_s, usage.peak_mib, 0.0)

    def _classify(self, work: Work, num_images: int) -> Sent:
        indices = [number % len(work.pictures) for number in range(num_images)]
        started = time.perf_counter()
        with ThreadPoolExecutor(self.concurrency) as pool:
            labels = list(pool.map(lambda index: self._label(work.pictures[index]), indices))
        return Sent(time.perf_counter() - started, 0, dict(zip(indices, labels, strict=True)))

    def _label(self, picture: Path) -> str:
        """Return what the process prints; where this one is ended, it ends by itself within a second or two."""
        files = (self.files.model_file, self.files.weights, self.files.labels, picture)
        done = subprocess.run(
            [self.venv.python, ONE_IMAGE, *files],
            env=clean_env(),
            capture_output=True,
            text=True,
            timeout=_ONE_IMAGE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"exit code {done.returncode} from {ONE_IMAGE.name}: {done.stderr[-500:]}")
        return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class ServerSetting:
    """A TorchServe.

    Attributes:
        name: Name of the setting.
        group: STOCK or OURS.
        contender: Starts it.
        workers: How many; None: as many as `configure` says.
        archive: File that is there once it was prepared; None: nothing is kept.
    """

    name: str
    group: str
    contender: Contender
    workers: int | None = None
    archive: Path | None = None

    def prepare(self) -> None:
        """Make its archive."""
        if self.archive is None or not self.archive.is_file():
            self.contender.prepare()

    def classify(self, work: Work) -> Done:
        """Start the server, warm it up with an image or two a client, and let it classify the images."""
        bodies, started = work.bodies, time.perf_counter()
        with self.contender.serve(self.workers) as served:
            start_s = time.perf_counter() - started
            send_images(served.url, bodies, 2 * work.clients, work.clients)
            with Usage(served.pid) as usage:
                sent = send_images(served.url, bodies, work.num_images, work.clients)
        return Done(sent, usage.cpu_s, usage.peak_mib, start_s)


class OurModel:
    """The model as `ts-handlers build` packs it.

    Args:
        files: The model.
        pictures: Folder of pictures to calibrate INT8 on.
        precision: fp32, bf16 or int8.
        folder: Where archive and logs go.
    """

    def __init__(self, files: ResNet, pictures: Path, precision: str, folder: Path) -> None:
        self._files, self._pictures, self._precision = files, pictures, precision
        self.ours = Ours("resnet", folder=folder, archive=self._archive)

    def _archive(self, store: Path) -> None:
        files = self._files
        print(f"building {self._precision} from {files.weights}", flush=True)
        command: list[str | Path] = [*TS_HANDLERS, "build", files.weights, "--model-file", files.model_file]
        command += ["--labels", files.labels, "--preprocessor", files.preprocessor, "--output", store]
        command += ["--task", "image-classification", "--name", self.ours.model, *PRECISIONS[self._precision]]
        if self._precision == "int8":
            command += ["--calibration", self._calibration(store)]
        run(command, log=store / "build.log", env=clean_env(), cwd=store, timeout_seconds=_BUILD_SECONDS)

    def _calibration(self, store: Path) -> Path:
        file = store / "calibration.tsv"
        pictures = sorted(self._pictures.iterdir())[:_NUM_CALIBRATION]
        file.write_text("".join(f"\t{picture}\n" for picture in pictures), encoding="utf-8")
        return file


def make_settings(venv: Venv, files: ResNet, pictures: Path, work_dir: Path, num_cpus: int) -> dict[str, Setting]:
    """Return all settings by name, in the order of the table."""
    settings: list[Setting] = [ProcessSetting(number, venv, files) for number in (1, 2, 4)]
    probe = min(pictures.iterdir())

    def side(chosen: StockSettings) -> StockSide:
        return StockResNetSide(chosen, venv=venv, files=files, probe=probe, work_dir=work_dir)

    default = StockSettings(
        num_cpus, 1, None
    )  # a worker a CPU and no batches: what TorchServe does unless told otherwise
    for chosen in (
        default,
        *(StockSettings(w, 8, t) for w, t in ((1, None), (num_cpus, None), (num_cpus, 1), (4, None))),
    ):
        contender = Stock(side, chosen.omp_num_threads, chosen.batch_size)
        settings.append(ServerSetting(f"stock-{chosen}", STOCK, contender, chosen.workers))
    for precision in PRECISIONS:
        ours = OurModel(files, pictures, precision, work_dir / f"ours-{files.weights.parent.name}-{precision}").ours
        settings.append(ServerSetting(f"ours-{precision}", OURS, ours, archive=ours.mar))
    return {setting.name: setting for setting in settings}
