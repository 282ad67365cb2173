"""Our side: `ts-handlers build`, `configure` and `serve`, as the README has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bench.process import run
from bench.sentiment import Sentiment
from bench.server import TS_HANDLERS, Launch, clean_env, fresh_folder
from ts_handlers.operate.torchserve.config import CONFIG_NAME, read_config
from ts_handlers.operate.torchserve.models import served_models
from ts_handlers.operate.torchserve.process.ports import free_port_options

MODEL = "ours"
TASK = "text-classification"
BUILD_SECONDS = 1800.0

AUTO = "auto"
AUTO_SECONDS = 3 * BUILD_SECONDS
"""`--precision auto` makes and measures many engines."""


class OurSide:
    """A build of the model folder with the precision asked for; `auto`: the engine that the gate chooses."""

    def __init__(self, *, model: Sentiment, work_dir: Path, precision: str = AUTO, build_options: str = "") -> None:
        self.name = "ours"
        self._model = model
        self._options = ["--precision", precision, *build_options.split()]
        if precision == AUTO:
            self._options += ["--backend", AUTO] if "--backend" not in self._options else []
            self._options += ["--calibration", str(model.calibration), "--evaluation", str(model.evaluation)]
        self._build_seconds = AUTO_SECONDS if precision == AUTO else BUILD_SECONDS
        self._folder = work_dir / "ours"
        self._store = self._folder / "store"
        self._config = self._store / CONFIG_NAME

    def prepare(self) -> None:
        """Build the archive from scratch."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store.mkdir(parents=True)
        self._run("build", self._model.model, "--task", TASK, "--name", MODEL, "--output", self._store, *self._options)
        print(f"  the archive has {self._engine()}", flush=True)

    def launch(self) -> Launch:
        """Serve with what `configure` decides; only ports and token checks are the benchmark's."""
        folder = fresh_folder(self._folder / "run")
        self._config.unlink(missing_ok=True)
        self._run("configure", self._store, *free_port_options(), "--disable-token-authorization")
        config = read_config(self._config)
        command: list[str | Path] = [*TS_HANDLERS, "serve", self._store, "--run-dir", folder]
        (model,) = served_models(config)
        return Launch(model, command, config.inference, config.management, folder, clean_env(folder))

    def describe(self) -> dict[str, str]:
        """Return the build options, the engine they led to, and the configuration in force."""
        lines = self._config.read_text(encoding="utf-8").splitlines()
        config = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
        options = " ".join(self._options).replace(str(self._model.calibration.parent), "DIR")
        return {
            "build": options,
            "engine": self._engine(),
            "config.properties": config.replace(str(self._store), "DIR"),
        }

    def _engine(self) -> str:
        report = json.loads((self._store / f"{MODEL}.build.json").read_text(encoding="utf-8"))
        return " ".join(filter(None, (report["backend"], report["precision"], report.get("quantizer"))))

    def _run(self, verb: str, *arguments: str | Path) -> None:
        print(f"ts-handlers {verb} {' '.join(str(argument) for argument in arguments)}", flush=True)
        run(
            [*TS_HANDLERS, verb, *arguments],
            log=self._folder / f"{verb}.log",
            env=clean_env(),
            cwd=self._folder,
            timeout_seconds=self._build_seconds,
        )
