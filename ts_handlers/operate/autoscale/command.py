"""`ts-handlers autoscale`: scale workers until a signal asks to stop."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ts_handlers.operate.autoscale.settings import Settings, read_settings
from ts_handlers.operate.stop_signals import StopRequested, ignore_stop_signals, stop_on_signals
from ts_handlers.operate.torchserve.client import TorchServe
from ts_handlers.optional import import_optional

HELP = "scale workers, and the pod they run in, to the traffic"

logger = logging.getLogger("ts_handlers.autoscale")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers autoscale`."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="what to scale, and how (YAML)")
    parser.add_argument("--dry-run", action="store_true", help="decide and say so, and change nothing")
    parser.add_argument("--verbose", action="store_true", help="log every decision, not only changes")


def run(args: argparse.Namespace) -> int:
    """Scale until a signal comes; workers stay as they are then."""
    settings = read_settings(args.config)
    import_optional("prometheus_client", "metrics are read and served with prometheus_client", extra="operate")
    with _logging(verbose=args.verbose), stop_on_signals():
        try:
            _scale(settings, is_dry_run=args.dry_run)
        except StopRequested as stop:
            ignore_stop_signals()
            logger.info("stopped (%s); the workers stay as they are", signal.Signals(stop.number).name)
    return 0


def _scale(settings: Settings, *, is_dry_run: bool) -> None:
    from ts_handlers.operate.autoscale.autoscaler import Autoscaler
    from ts_handlers.operate.autoscale.pod import Pod, Resizer
    from ts_handlers.operate.autoscale.report import Report

    report, metrics, address = Report(), settings.metrics, settings.torchserve
    key_file = None if address.key_file is None else Path(address.key_file)
    server = TorchServe(address.management_url, key_file, metrics_url=address.metrics_url, timeout_s=address.timeout_s)
    pod = None if settings.kubernetes is None else Pod(settings.kubernetes)
    resizer = None if pod is None else Resizer(pod, time.monotonic, report)
    with contextlib.nullcontext() if metrics.port is None else report.serve(metrics.host, metrics.port):
        logger.info(
            "scaling %s of %s on %s%s%s",
            ", ".join(settings.models),
            address.management_url,
            pod or "this machine",
            f"; metrics on http://{metrics.host}:{metrics.port}/metrics" if metrics.port is not None else "",
            "; dry run: nothing is changed" if is_dry_run else "",
        )
        autoscaler = Autoscaler(settings, server, resizer, report, clock=time.monotonic, is_dry_run=is_dry_run)
        while True:
            time.sleep(autoscaler.look())


@contextlib.contextmanager
def _logging(*, verbose: bool) -> Iterator[None]:
    """Log to standard output, with the time."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
