"""Our side: `ts-handlers build`, `configure` and `serve`, as the README has them."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.process import run
from bench.server import TS_HANDLERS, Launch, clean_env, fresh_folder
from ts_handlers.operate.configure.config_file import CONFIG_NAME
from ts_handlers.operate.ports import free_port_options
from ts_handlers.operate.server_config import read_server_config

MODEL = "ours"
TASK = "text-classification"
BUILD_SECONDS = 1800.0


class OurSide:
    """A build of the model folder with the precision asked for."""

    def __init__(self, *, model: Path, work_dir: Path, precision: str = "int8", build_options: str = "") -> None:
        self.name = "ours"
        self._model = model
        self._precision, self._build_options = precision, build_options.split()
        self._folder = work_dir / "ours"
        self._store = self._folder / "store"
        self._config = self._store / CONFIG_NAME

    def prepare(self) -> None:
        """Build the archive from scratch."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        self._run("build", self._model, "--task", TASK, "--name", MODEL, "--output", self._store,
                  "--precision", self._precision, *self._build_options)  # fmt: skip

    def launch(self) -> Launch:
        """Serve with what `configure` decides; only ports and token checks are the benchmark's."""
        folder = fresh_folder(self._folder / "run")
        self._config.unlink(missing_ok=True)
        self._run("configure", self._store, *free_port_options(), "--disable-token-authorization")
        config = read_server_config(self._config)
        command: list[str | Path] = [*TS_HANDLERS, "serve", self._store, "--run-dir", folder]
        (model,) = config.models
        return Launch(model, command, config.inference, config.management, folder, clean_env(folder))

    def describe(self) -> dict[str, str]:
        """Return the build options and the configuration in force."""
        lines = self._config.read_text(encoding="utf-8").splitlines()
        config = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
        options = " ".join(["--precision", self._precision, *self._build_options])
        return {"build": options, "config.properties": config.replace(str(self._store), "DIR")}

    def _run(self, verb: str, *arguments: str | Path) -> None:
        print(f"ts-handlers {verb} {' '.join(str(argument) for argument in arguments)}", flush=True)
        run(
            [*TS_HANDLERS, verb, *arguments],
            log=self._folder / f"{verb}.log",
            env=clean_env(),
            cwd=self._folder,
            timeout_seconds=BUILD_SECONDS,
        )
