"""Our side: `ts-handlers build`, `configure` and `serve`, as the README has them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench.process import BenchError, run
from bench.server import Launch, Ports, clean_env, fresh_folder, override_properties
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
    venv = Venv(work_dir / "ours-venv")
    venv.ensure((f"{_CHECKOUT}[{extras}]",))
    venv.pip("install", "--no-deps", "--force-reinstall", str(_CHECKOUT))  # the code as it is now
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

    def prepare(self) -> None:
        """Build the archive and its config.properties, from scratch."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        self._run("build", self._model, "--task", TASK, "--name", MODEL, "--output", self._store,
                  "--precision", self._precision, *self._build_options)  # fmt: skip
        self._run("configure", self._store)

    def launch(self) -> Launch:
        """Serve with the configuration that `configure` wrote; only addresses and token checks are the benchmark's."""
        folder = fresh_folder(self._folder / "run")
        ports = Ports.free()
        written = self._store / "config.properties"
        if not written.is_file():
            raise BenchError(f"`ts-handlers configure` wrote no {written}")
        config = folder / "config.properties"
        config.write_text(
            override_properties(written.read_text(encoding="utf-8"), ports.properties()), encoding="utf-8"
        )
        command: list[str | Path] = [self._program, "serve", self._store, "--config", config]
        return Launch(MODEL, command, ports, folder, self._env(folder))

    def describe(self) -> dict[str, str]:
        """Return the build options and the configuration in force."""
        lines = (self._store / "config.properties").read_text(encoding="utf-8").splitlines()
        config = "; ".join(line.strip() for line in lines if "=" in line and not line.lstrip().startswith("#"))
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
