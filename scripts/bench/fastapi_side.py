"""The same model without TorchServe: fastapi_server.py under uvicorn, in an environment of its own."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

from bench.ours import BUILD_SECONDS, TASK
from bench.process import BenchError, run, wait_until
from bench.server import START_SECONDS, TS_HANDLERS, Launch, Server, clean_env, fresh_folder
from bench.venv import Venv
from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.models import ConfiguredModel
from ts_handlers.operate.torchserve.process.ports import free_ports

MODEL = "fastapi"
NUM_PROCESSES = 2
PRECISION = "int8"
REQUIREMENTS = ("fastapi>=0.115", "uvicorn[standard]>=0.30", "onnxruntime>=1.20", "tokenizers>=0.20", "numpy>=1.26")
FILES = ("model.onnx", "tokenizer.json", "index_to_name.json")
"""What the server reads; taken from an archive of ours, so that both sides run the same graph."""

_SERVER = Path(__file__).with_name("fastapi_server.py")
_IS_UP = "Application startup complete."
"""What uvicorn logs once for each process."""


class FastApiSide:
    """The INT8 build of a model folder, without the archive around it."""

    def __init__(self, *, model: Path, work_dir: Path) -> None:
        self.name = "fastapi"
        self._model = model
        self._venv = Venv(work_dir / "fastapi-venv")
        self._folder = work_dir / "fastapi"
        self._files = self._folder / "files"

    def prepare(self) -> None:
        """Make the environment and the model's files."""
        self._venv.ensure(REQUIREMENTS)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.mkdir(parents=True)
        command: list[str | Path] = [*TS_HANDLERS, "build", self._model, "--task", TASK, "--name", MODEL]
        command += ["--precision", PRECISION, "--output", self._folder]
        print(f"building the {PRECISION} model of {self.name}", flush=True)
        run(command, log=self._folder / "build.log", env=clean_env(), cwd=self._folder, timeout_seconds=BUILD_SECONDS)
        with zipfile.ZipFile(self._folder / f"{MODEL}.mar") as archive:
            for name in FILES:
                archive.extract(name, self._files)

    def launch(self) -> Launch:
        """Run two processes on one port, as the stock side and ours have two workers on two CPUs."""
        folder = fresh_folder(self._folder / "run")
        shutil.copy(_SERVER, folder)
        (port,) = free_ports(1)
        command: list[str | Path] = [
            *(self._venv.python, "-m", "uvicorn", f"{_SERVER.stem}:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(NUM_PROCESSES), "--no-access-log"),
        ]
        address = Address("inference", "http", "127.0.0.1", port)
        model = ConfiguredModel(MODEL, "1.0", NUM_PROCESSES, int(START_SECONDS))
        return Launch(model, command, address, address, folder, clean_env(folder, MODEL_DIR=str(self._files)))

    def describe(self) -> dict[str, str]:
        """Return what is run, and with which packages."""
        packages = self._venv.run("-m", "pip", "freeze").split()
        wanted = {requirement.split(">=")[0].split("[")[0] for requirement in REQUIREMENTS}
        found = " ".join(package for package in packages if package.split("==")[0] in wanted)
        return {
            "processes": str(NUM_PROCESSES),
            "engine": f"ONNX Runtime {PRECISION}, one thread",
            "environment": found,
        }


class FastApiServer(Server):
    """It has no management API: it is ready once each process says so and a prediction is answered."""

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.log.read_text(encoding="utf-8", errors="replace").count(_IS_UP) < NUM_PROCESSES:
            if self._child.exit_code is not None:
                raise BenchError(f"{MODEL}: the server ended while starting\n{self._child.tail()}")
            if not wait_until(deadline):
                raise BenchError(f"{MODEL}: not ready after {START_SECONDS:.0f} s\n{self._child.tail()}")
        self.predict(self._launch.probe)
