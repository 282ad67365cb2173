"""One trial: configure a folder for a setting, start a real TorchServe on it, send it load, stop it."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ts_handlers.cpu import THREADS_ENV
from ts_handlers.errors import OperatorError
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.configure import command as configure
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.operate.tune.objective import Measurement
from ts_handlers.operate.tune.results import Trial
from ts_handlers.operate.tune.search import failure
from ts_handlers.operate.tune.space import Setting
from ts_handlers.operate.tune.stop import Stopper
from ts_handlers.reading import parse_json

FIRST_START_LIMIT_S = 600.0
"""How long the first server may take to start; a later one three times as long as the slowest, and half a minute."""


@dataclass(frozen=True, slots=True)
class Load:
    """What each server is sent.

    Attributes:
        payloads: Request bodies, in turn.
        concurrency: Requests in flight; in an open loop at most so many.
        rate: Requests per second of an open loop; None: a closed loop.
        warmup_s: Seconds of load before what is measured.
    """

    payloads: Sequence[Payload]
    concurrency: int
    rate: float | None
    warmup_s: float


class Bench:
    """Measures settings, one server after the other.

    Args:
        archive: The archive, free of what overrides config.properties, alone in its folder.
        load: What each server is sent.
        folder: Where a trial's files are made, and removed.
        stopper: Holds signals back while a server is stopped.
    """

    def __init__(self, archive: Archive, load: Load, folder: Path, stopper: Stopper) -> None:
        self._archive = archive
        self._load = load
        self._folder = folder
        self._stopper = stopper
        self._start_limit_s = FIRST_START_LIMIT_S
        self._slowest_start_s = 0.0

    def measure(self, setting: Setting, seconds: float, rung: int | None) -> Trial:
        """Start a server for the setting, measure it for so many seconds, and stop it; failures are recorded."""
        began = time.monotonic()
        start_s, result, reason = 0.0, None, None
        try:
            with (
                tempfile.TemporaryDirectory(prefix="t", dir=self._folder, ignore_cleanup_errors=True) as folder,
                self._running(self._configure(setting, Path(folder))) as server,
            ):
                start_s = time.monotonic() - began
                self._learn(start_s)
                # uvloop takes what is raised while it hands over data for an error of that connection
                result = run_load(self._spec(server, seconds), on_progress=lambda _: self._stopper.check())
                self._stopper.check()
        except OperatorError as error:
            reason = str(error).split("; see ")[0]  # the log is gone with the folder
        total_s = time.monotonic() - began
        measured = None if result is None else summarize(result)
        if measured is not None and result is not None:
            reason = failure(measured)
            reason = f"{reason}: {result.first_error}" if reason and result.first_error else reason
        measured_s = 0.0 if result is None else seconds
        return Trial(setting, rung, measured_s, start_s, total_s, None if reason else measured, reason)

    @contextlib.contextmanager
    def _running(self, server: BackgroundServer) -> Iterator[BackgroundServer]:
        """Start a server, wait until it is ready, and stop it whatever happens: no signal comes between."""
        with contextlib.ExitStack() as stack:
            with self._stopper.shield():
                server.start()
                stack.callback(self._stop, server)
            server.wait_ready(self._start_limit_s)
            yield server

    def _stop(self, server: BackgroundServer) -> None:
        with self._stopper.shield():
            server.stop()

    def _configure(self, setting: Setting, folder: Path) -> BackgroundServer:
        config = folder / CONFIG_NAME
        write_config(self._archive.path.parent, setting, config, free_port_options())
        environ = {**os.environ, THREADS_ENV: str(setting.threads), "TEMP": str(folder), "TMPDIR": str(folder)}
        environ.pop("LOG_LOCATION", None)
        environ.pop("METRICS_LOCATION", None)
        return BackgroundServer(
            self._archive.path.parent,
            config=config,
            run_dir=folder / "run",
            options=("--stop-grace-s", "0"),  # the load has ended, and what the server wrote goes with the folder
            environ=environ,
        )

    def _spec(self, server: BackgroundServer, seconds: float) -> LoadSpec:
        return LoadSpec(
            url=f"{server.inference_url}/predictions/{quote(self._archive.model_name)}",
            payloads=self._load.payloads,
            concurrency=self._load.concurrency,
            rate=self._load.rate,
            duration_s=seconds,
            warmup_s=self._load.warmup_s,
            headers={"Authorization": f"Bearer {server.token()}"},
        )

    def _learn(self, start_s: float) -> None:
        self._slowest_start_s = max(self._slowest_start_s, start_s)
        self._start_limit_s = 3 * self._slowest_start_s + 30


def summarize(result: LoadResult) -> Measurement:
    """Return what counts of a load; latencies are infinite where nothing was answered."""
    p50, p90, p99 = (
        float("inf") if value is None else value for value in (result.p50_ms, result.p90_ms, result.p99_ms)
    )
    return Measurement(result.requests_per_second, p50, p90, p99, result.num_ok, dict(result.errors))


def write_config(store: Path, setting: Setting | None, config: Path, options: Sequence[str] = ()) -> None:
    """Run `ts-handlers configure` on a folder of one archive.

    Args:
        store: The folder.
        setting: What it is to decide; None for its own decision.
        config: The config.properties to write.
        options: More options.

    Raises:
        OperatorError: Something in the folder or the options overrides the setting.
    """
    words = [str(store), "--output", str(config), "--force", *options]
    if setting is not None:
        words += ["--workers", str(setting.workers), "--batch-size", str(setting.batch_size)]
        words += ["--max-batch-delay-ms", str(setting.max_batch_delay_ms)]
    parser = argparse.ArgumentParser()
    configure.add_arguments(parser)
    with contextlib.redirect_stdout(io.StringIO()):  # its report is about a folder that does not last
        configure.run(parser.parse_args(words))
    if setting is None:
        return
    workers, batch_size, delay = read_decision(config)
    if (workers, batch_size, delay) != (setting.workers, setting.batch_size, setting.max_batch_delay_ms):
        raise OperatorError(
            f"configure wrote {workers} workers, batches of {batch_size} and a delay of {delay} ms where "
            f"{setting.describe()} was asked for; remove what overrides it from the archive's model-config.yaml"
        )


def read_decision(config: Path) -> tuple[int, int, int]:
    """Return (workers, batch size, batch delay in ms) of the only model of a config.properties."""
    values = properties.parse(config.read_text(encoding=properties.ENCODING))
    ((versions),) = parse_json(values["models"]).values()
    ((model),) = versions.values()
    return int(model["minWorkers"]), int(model["batchSize"]), int(model["maxBatchDelay"])
