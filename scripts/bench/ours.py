"""Our side: `ts-handlers build`, `configure` and `serve`, as the README has them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench.process import run
from bench.server import Launch, Ports, clean_env, fresh_folder
from bench.stock import TORCH
from bench.venv import Venv

MODEL = "ours"
TASK = "text-classification"
EXTRAS = "cpu,build,operate"
BUILD_SECONDS = 1800.0

_CHECKOUT = Path(__file__).resolve().parents[2]


def our_python(work_dir: Path, extras: str = EXTRAS) -> Path:
    """Return the Python of our side: this one if `ts-handlers` is installed beside it, else one made for it."""
    here = Path(sys.executable)
    if here.with_name("ts-handlers").is_file():
        return here
    source = work_dir / "ours-source"  # a copy: pip would leave its build folder in the checkout
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(_CHECKOUT, source, ignore=shutil.ignore_patterns(".*", "model_store", "*.egg-info"))
    venv = Venv(work_dir / "ours-venv")
    venv.ensure((TORCH,))
    print(f"installing {_CHECKOUT.name}[{extras}] as it is now", flush=True)
    venv.pip("install", f"{source}[{extras}]", TORCH)  # a folder is installed anew each time
    return venv.python


class OurSide:
    """A build of the model folder with the precision asked for."""

    def __init__(
        self, *, python: Path, java: Path, model: Path, work_dir: Path, precision: str = "int8", build_options: str = ""
    ) -> None:
        self.name = "ours"
        self._program = python.with_name("ts-handlers")
        self._java, self._model = java, model
        self._precision, self._build_options = precision, build_options.split()
        self._folder = work_dir / "ours"
        self._store = self._folder / "store"
        self._config = self._store / "config.properties"

    def prepare(self) -> None:
        """Build the archive from scratch."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        self._run("build", self._model, "--task", TASK, "--name", MODEL, "--output", self._store,
                  "--precision", self._precision, *self._build_options)  # fmt: skip

    def launch(self) -> Launch:
        """Serve with what `configure` decides; only ports and token checks are the benchmark's."""
        folder = fresh_folder(self._folder / "run")
        ports = Ports.free()
        self._config.unlink(missing_ok=True)
        self._run("configure", self._store, *_port_options(ports), "--disable-token-authorization")
        command: list[str | Path] = [self._program, "serve", self._store, "--run-dir", folder]
        return Launch(MODEL, command, ports, folder, self._env(folder))

    def describe(self) -> dict[str, str]:
        """Return the build options and the configuration in force."""
        lines = self._config.read_text(encoding="utf-8").splitlines()
        config = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
        options = " ".join(["--precision", self._precision, *self._build_options])
        return {"build": options, "config.properties": config.replace(str(self._store), "DIR")}

    def _env(self, folder: Path | None = None) -> dict[str, str]:
        return clean_env(folder, JAVA_HOME=str(self._java))

    def _run(self, verb: str, *arguments: str | Path) -> None:
        print(f"ts-handlers {verb} {' '.join(str(argument) for argument in arguments)}", flush=True)
        run(
            [self._program, verb, *arguments],
            log=self._folder / f"{verb}.log",
            env=self._env(),
            cwd=self._folder,
            timeout_seconds=BUILD_SECONDS,
        )


def _port_options(ports: Ports) -> list[str]:
    numbers = {
        "--inference-port": ports.inference,
        "--management-port": ports.management,
        "--metrics-port": ports.metrics,
        "--grpc-inference-port": ports.grpc_inference,
        "--grpc-management-port": ports.grpc_management,
        "--initial-worker-port": ports.first_worker,
    }
    return [text for option, number in numbers.items() for text in (option, str(number))]
