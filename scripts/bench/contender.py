"""A model on one side: made once, then served by TorchServe with as many workers as asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.process import BenchError, run
from bench.server import TS_HANDLERS, Server, clean_env, fresh_folder
from bench.stock import StockSettings, StockSide
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

BATCH_SIZE = 8
START_SECONDS = 300.0

_CONFIGURE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready.

    Attributes:
        url: Where to POST a prediction.
        pid: The process the others descend from.
        metrics_url: Where its metrics are; None on the stock side.
        management_url: Where its management API is; None on the stock side.
        start_seconds: From the start of its process until every worker was ready; None on the stock side.
    """

    url: str
    pid: int
    metrics_url: str | None = None
    management_url: str | None = None
    start_seconds: float | None = None


class Contender(Protocol):
    """A model on one side."""

    side: str

    def prepare(self) -> None:
        """Make the archive. May take minutes, once a run."""

    def serve(self, workers: int | None) -> AbstractContextManager[Served]:
        """Start a server, and end it on leaving; None: as many workers as the side decides."""


class Ours:
    """An archive of ours, as `ts-handlers configure` and `serve` run it.

    Args:
        model: Name it is served by.
        folder: Where archive, configuration and logs go.
        archive: Writes MODEL.mar into the folder it is given.
        batch_size: Most requests of a batch.
    """

    side = "ours"

    def __init__(
        self, model: str, *, folder: Path, archive: Callable[[Path], None], batch_size: int = BATCH_SIZE
    ) -> None:
        self.model, self._batch_size = model, batch_size
        self.folder = folder
        self.store = folder / "store"
        self._archive = archive

    @property
    def mar(self) -> Path:
        """The archive."""
        return self.store / f"{self.model}.mar"

    def prepare(self) -> None:
        """Make the archive from scratch."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.store.mkdir(parents=True)
        self._archive(self.store)

    @contextmanager
    def serve(self, workers: int | None) -> Iterator[Served]:
        """Serve with what `configure` decides; only ports, token checks and, if given, workers are the benchmark's."""
        run_dir = fresh_folder(self.folder / "run")
        options = ["--batch-size", str(self._batch_size), "--disable-token-authorization", *free_port_options()]
        if workers is not None:
            options += ["--workers", str(workers)]
        run(
            [*TS_HANDLERS, "configure", self.store, *options],
            log=self.folder / "configure.log",
            env=clean_env(),
            cwd=self.folder,
            timeout_seconds=_CONFIGURE_SECONDS,
        )
        server = BackgroundServer(self.store, run_dir=run_dir, environ=clean_env(run_dir))
        metrics = server.config.metrics
        if metrics is None:
            raise BenchError(f"{server.config.path} turns the metrics off; leave them on, they are read here")
        try:
            started = time.monotonic()
            server.start()
            server.wait_ready(START_SECONDS)
            yield Served(
                url=f"{server.inference_url}/predictions/{self.model}",
                metrics_url=f"{metrics.url}/metrics",
                pid=server.pid,
                management_url=server.config.management.url,
                start_seconds=time.monotonic() - started,
            )
        finally:
            server.stop()


class Stock:
    """A stock handler with OMP_NUM_THREADS as given; None: unset, as TorchServe ships.

    Args:
        make_side: Makes the side for one choice of settings.
        omp_num_threads: Threads of each worker's pool.
        batch_size: Most requests of a batch.
    """

    side = "stock"

    def __init__(
        self, make_side: Callable[[StockSettings], StockSide], omp_num_threads: int | None, batch_size: int = BATCH_SIZE
    ) -> None:
        self._make_side, self._omp_num_threads, self._batch_size = make_side, omp_num_threads, batch_size

    def prepare(self) -> None:
        """Make nothing yet: the number of workers stands in the archive, so each number has one of its own."""

    @contextmanager
    def serve(self, workers: int | None) -> Iterator[Served]:
        """Archive and serve."""
        side = self._make_side(StockSettings(workers or 1, self._batch_size, self._omp_num_threads))
        side.prepare()
        with Server(side.launch()) as server:
            yield Served(server.url, server.pid)
