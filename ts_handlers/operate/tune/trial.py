"""One trial: configure a folder for a setting, start a real TorchServe on it, send it load, stop it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.machine import THREADS_ENV
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.result import LoadResult, describe_errors
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.operate.tune.archive import write_config
from ts_handlers.operate.tune.results import Setting, Trial

MAX_ERROR_SHARE = 0.01
"""A setting under which more of the requests fail is no choice."""


def run_trial(
    archive: Archive, setting: Setting, load: LoadSpec, check: Callable[[], None], *, start_limit_s: float, folder: Path
) -> Trial:
    """Start a server for the setting, load it, and stop it; failures are recorded.

    Args:
        archive: The archive, free of what overrides config.properties, alone in its folder.
        setting: What the server is started with.
        load: What it is sent; the host and the token are the server's.
        check: Raises something where the search is to end; called several times a second.
        start_limit_s: Seconds the server may take to start.
        folder: Where the trial's files are made, and removed.
    """
    began = time.monotonic()
    start_s, measured, reason = 0.0, None, None
    try:
        with (
            tempfile.TemporaryDirectory(prefix="t", dir=folder, ignore_cleanup_errors=True) as own,
            contextlib.ExitStack() as stack,
        ):
            server = _configured(archive, setting, Path(own))
            server.start()
            stack.callback(server.stop)
            server.wait_ready(start_limit_s, check)
            start_s = time.monotonic() - began
            url = load.url.replace("http://127.0.0.1", server.inference_url, 1)
            spec = replace(load, url=url, headers={"Authorization": f"Bearer {server.token()}"})
            result = run_load(spec, on_progress=lambda _: check())
            reason = failure(result)
            measured = None if reason else replace(result, timeline=())
    except OperatorError as error:
        reason = str(error).split("; see ")[0]  # the log is gone with the folder
    return Trial(setting, start_s, time.monotonic() - began, measured, reason)


def failure(result: LoadResult) -> str | None:
    """Say why a load makes a setting no choice; None where it is one."""
    total = result.num_ok + result.num_errors
    if total and result.num_errors <= MAX_ERROR_SHARE * total:
        return None
    errors = describe_errors(result.errors) if total else "none was answered"
    return f"{result.num_errors / max(1, total):.0%} of the requests failed ({errors}): {result.first_error}"


def _configured(archive: Archive, setting: Setting, folder: Path) -> BackgroundServer:
    config = folder / CONFIG_NAME
    store = archive.path.parent
    write_config(store, setting, config, free_port_options())
    environ = {**os.environ, THREADS_ENV: str(setting.threads), "TEMP": str(folder), "TMPDIR": str(folder)}
    environ.pop("LOG_LOCATION", None)
    environ.pop("METRICS_LOCATION", None)
    # no grace: the load has ended, and what the server wrote goes with the folder
    options = ("--stop-grace-s", "0")
    return BackgroundServer(store, config=config, run_dir=folder / "run", options=options, environ=environ)
