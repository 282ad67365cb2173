"""Our archives as `ts-handlers configure` and `serve` run them, and how a TorchServe is started and waited for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.process import TS_HANDLERS, clean_env, cli, free_ports
from bench.side import Served, describe, num_ready, started

BATCH_SIZE = 8
PORTS = ("inference", "management", "metrics", "grpc-inference", "grpc-management")
TEXT, JPEG = "text/plain", "image/jpeg"


@dataclass(slots=True)
class Archive:
    """An archive of ours, made once a run.

    Attributes:
        folder: Where archive, configuration and logs go.
        model: Name it is served by.
        options: Source and options of `ts-handlers build`.
        is_made: Whether it is there.
    """

    folder: Path
    model: str
    options: Sequence[str | Path]
    is_made: bool = False

    @classmethod
    def of(cls, mar: Path, folder: Path) -> Archive:
        """Return an archive that somebody has built, copied into a folder of its own."""
        archive = cls(folder, mar.stem, (), is_made=True)
        shutil.rmtree(folder, ignore_errors=True)
        archive.store.mkdir(parents=True)
        shutil.copy(mar, archive.store)
        return archive

    @property
    def store(self) -> Path:
        """The model store."""
        return self.folder / "store"

    @property
    def mar(self) -> Path:
        """The archive itself."""
        return self.store / f"{self.model}.mar"

    def make(self) -> None:
        """Build it from scratch, unless this run has."""
        if not self.is_made:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.store.mkdir(parents=True)
            words = ("--name", self.model, "--output", self.store)
            cli("build", *self.options, *words, log=self.folder / "build.log", timeout_seconds=3 * 3600)
            self.is_made = True


@dataclass(frozen=True, slots=True)
class Ours:
    """An archive as `ts-handlers configure` and `serve` run it: only ports, token checks and what is given are not theirs.

    Attributes:
        name: Of the side.
        archive: What is served.
        workers: How many; None: as many as `configure` decides.
        batch_size: Most requests of a batch; None: likewise.
        threads: Of each worker, where not what its share says.
    """

    name: str
    archive: Archive
    workers: int | None = None
    batch_size: int | None = BATCH_SIZE
    threads: int | None = None

    def prepare(self) -> None:
        """Build the archive."""
        self.archive.make()

    def serve(self) -> AbstractContextManager[Served]:
        """Configure and serve."""
        folder, ports, store = fresh_folder(self.archive.folder / "run"), free_ports(PORTS), self.archive.store
        options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
        options += ["--initial-worker-port", str(ports["inference"]), "--disable-token-authorization"]
        for name, value in (("--workers", self.workers), ("--batch-size", self.batch_size)):
            options += [] if value is None else [name, str(value)]
        cli("configure", store, *options, log=self.archive.folder / "configure.log", is_shown=False)
        env = clean_env(**temporary(folder)) | ({"TS_HANDLERS_THREADS": str(self.threads)} if self.threads else {})
        command: list[str | Path] = [*TS_HANDLERS, "serve", store, "--run-dir", folder]
        return torchserve(command, folder, env, ports, self.archive.model)


def fresh_folder(folder: Path) -> Path:
    """Return `folder`, emptied, with a `tmp` in it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    return folder


def temporary(folder: Path) -> dict[str, str]:
    """Return the environment variables that put a server's temporary files, sockets among them, into a folder."""
    return {"TEMP": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}


def torchserve(
    command: Sequence[str | Path], folder: Path, env: dict[str, str], ports: dict[str, int], model: str
) -> AbstractContextManager[Served]:
    """Start a TorchServe that serves a model; it is ready with all its workers."""
    urls = {name: f"http://127.0.0.1:{ports[name]}" for name in PORTS[:3]}

    def is_ready() -> bool:
        described = describe(urls["management"], model)
        return num_ready(described) >= int(described["minWorkers"])

    found = {"url": f"{urls['inference']}/predictions/{model}", "metrics_url": f"{urls['metrics']}/metrics"}
    return started(command, folder, env, is_ready, found | {"management_url": urls["management"]})
