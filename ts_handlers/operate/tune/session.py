"""One run of `tune`, from its options to its exit code; for each trial a real TorchServe is started, loaded and stopped."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from ts_handlers.errors import OperatorError
from ts_handlers.machine import THREADS_ENV, cpu_budget
from ts_handlers.machine.memory import memory_limit
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.load.plot import import_plotly
from ts_handlers.operate.load.result import LoadResult, describe_errors
from ts_handlers.operate.replacing import replacing, unfinished
from ts_handlers.operate.stop_signals import StopRequested, stop_when_asked
from ts_handlers.operate.torchserve.archives import Archive, read_archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME
from ts_handlers.operate.torchserve.process.java import find_java
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.operate.tune.archive import (
    build_report,
    has_threads,
    place_archive,
    read_default,
    write_config,
    write_output,
)
from ts_handlers.operate.tune.report import REPORT_NAME, report_page
from ts_handlers.operate.tune.results import RESULTS_NAME, Objective, Outcome, Results, Setting, Trial, read_conditions
from ts_handlers.operate.tune.search import MIN_ROUNDS, decide, next_setting, settings_to_try

EXIT_UNMET = 1
EXIT_INTERRUPTED = 130

MIN_REQUESTS = 50
"""Requests of a trial at a rate, at least: a single late one must not decide whether a server keeps up."""

MAX_ERROR_SHARE = 0.01
"""A setting under which more of the requests fail is no choice."""

LEAST_OVERHEAD_S = 5.0
"""No TorchServe starts and stops faster; what it takes here is known after the first trial."""

FIRST_START_LIMIT_S = 600.0
"""How long the first server may take to start; a later one three times as long as the slowest, and half a minute."""


def tune(options: argparse.Namespace) -> int:
    """Search, write the tuned folder, and return the exit code.

    Args:
        options: What `command.add_arguments` declares.

    Raises:
        OperatorError: Something is wrong with the archive, the payloads, the folder or the time.
    """
    archive, output, budget = _read(options.archive), options.output, cpu_budget()
    load = _load(options, archive)
    _check(options)
    claim_output(output, archive)
    default, worker_bytes = read_default(archive, budget)
    conditions = {**read_conditions(archive, load, budget), "configure's default": default.describe()}
    results = _open_results(options, conditions, default)
    print(f"machine: {budget.describe()}")
    print(f"looking for {results.objective.describe()}, up to {options.minutes:g} min; default: {default.describe()}")
    if results.trials:
        print(f"going on from {_count(results)} in {results.path}", flush=True)
    settings = settings_to_try(
        default,
        budget.cpus,
        max_workers=max(default.workers, memory_limit() * 3 // 4 // worker_bytes),  # a quarter is everybody else's
        max_batch_size=max(default.batch_size, options.concurrency),
        is_threads_free=has_threads(archive),
    )[: options.max_settings]
    try:
        with stop_when_asked() as check, tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as name:
            placed = place_archive(archive, Path(name) / "store")

            def measure(setting: Setting, start_limit_s: float) -> Trial:
                check()
                return run_trial(placed, setting, load, check, start_limit_s=start_limit_s, folder=Path(name))

            outcome = search(settings, results, 60 * options.minutes, measure)
            write_output(output, archive, outcome.choice, budget)
    except StopRequested:
        print(f"\ninterrupted; {_count(results)} kept in {results.path}")
        print("the same command goes on from there", flush=True)
        return EXIT_INTERRUPTED
    finally:
        if results.trials:
            with replacing(output / REPORT_NAME) as part:
                part.write_text(report_page(results), encoding="utf-8")
    print("\n".join(outcome.sentences))
    print(f"wrote {output}: {archive.path.name}, {CONFIG_NAME}, {METRICS_NAME}, {RESULTS_NAME}, {REPORT_NAME}")
    print(f"next: ts-handlers serve {shlex.quote(str(output))}", flush=True)
    return 0 if outcome.is_met else EXIT_UNMET


def search(
    settings: tuple[Setting, ...], results: Results, budget_s: float, measure: Callable[[Setting, float], Trial]
) -> Outcome:
    """Measure settings in turns until the time is over or all is known, and keep what came of it.

    Args:
        settings: What may be tried, the default first.
        results: What is known already, and where trials are kept.
        budget_s: Seconds of the whole search, what is known included.
        measure: Measures a setting, whose server may take so many seconds to start.

    Raises:
        OperatorError: The default cannot be measured.
    """
    while (setting := next_setting(settings, results, budget_s)) is not None:
        slowest_s = max((trial.start_s for trial in results.trials), default=FIRST_START_LIMIT_S / 3)
        trial = measure(setting, 3 * slowest_s + 30)
        results.trials.append(trial)
        results.write()
        left_min = max(0.0, budget_s - sum(trial.total_s for trial in results.trials)) / 60
        said = f"trial {len(results.trials)}: {trial.describe()} (at most {left_min:.0f} min left)"
        print(said, file=sys.stderr, flush=True)
    results.outcome = decide(results)
    results.write()
    return results.outcome


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


def claim_output(output: Path, archive: Archive) -> None:
    """Check that the folder holds nothing but what `tune` wrote: `configure` would serve every archive in it.

    What a `tune` that was killed has left unfinished is removed.

    Raises:
        OperatorError: It holds something else, or is no folder.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise OperatorError(f"{output} is no folder; choose another --output")
    ours = {archive.path.name, build_report(archive).name, CONFIG_NAME, METRICS_NAME, RESULTS_NAME, REPORT_NAME, "run"}
    parts = {part for name in ours for part in unfinished(output / name)}
    names = {path.name for path in output.iterdir() if path not in parts}
    strange = sorted(names - ours) or (sorted(names) if RESULTS_NAME not in names else [])
    if strange:
        raise OperatorError(
            f"{output} holds what tune did not write ({', '.join(strange[:3])}), which --force does not overwrite either; "
            "choose a new or empty folder"
        )
    if (output / archive.path.name).resolve() == archive.path.resolve():
        raise OperatorError(f"{archive.path} lies in the output folder; tune the original, or choose another --output")
    for part in parts:
        part.unlink(missing_ok=True)


def _load(options: argparse.Namespace, archive: Archive) -> LoadSpec:
    return LoadSpec(
        url=f"http://127.0.0.1/predictions/{quote(archive.model_name)}",
        payloads=read_payloads(options.payloads),
        concurrency=options.concurrency,
        rate=options.rate,
        duration_s=options.trial_s,
        warmup_s=options.warmup_s,
    )


def _open_results(options: argparse.Namespace, conditions: Mapping[str, str], default: Setting) -> Results:
    """Return what is known already; make the folder, and see that it can be written."""
    objective = Objective(options.slo_p99_ms, options.rate)
    results = Results(options.output / RESULTS_NAME, conditions, default, objective)
    if results.path.exists() and not options.force:
        results.read_trials()
    options.output.mkdir(parents=True, exist_ok=True)
    results.write()
    return results


def _read(path: Path) -> Archive:
    if not path.is_file():
        raise OperatorError(f"there is no file {path}; give a model archive (.mar)")
    if path.suffix != ".mar":
        raise OperatorError(f"{path} is no .mar file; build one with: ts-handlers build SOURCE ...")
    return read_archive(path)


def _check(options: argparse.Namespace) -> None:
    find_java()
    import_plotly()
    if options.max_settings < 2:
        raise OperatorError(f"--max-settings is {options.max_settings}: give 2 or more, the default is one of them")
    if options.rate is not None and options.rate * options.trial_s < MIN_REQUESTS:
        raise OperatorError(
            f"at --rate {options.rate:g} a trial of {options.trial_s:g} s has fewer than {MIN_REQUESTS} requests, and a "
            f"single late one would decide; give --trial-s {math.ceil(MIN_REQUESTS / options.rate)} or more"
        )
    least_s = 2 * MIN_ROUNDS * (LEAST_OVERHEAD_S + options.trial_s)
    if 60 * options.minutes < least_s:
        raise OperatorError(
            f"--minutes {options.minutes:g} is too short to measure two settings twice; give {math.ceil(least_s / 60)} "
            "or more, or a shorter --trial-s"
        )


def _count(results: Results) -> str:
    number = len(results.trials)
    return f"{number} trial" if number == 1 else f"{number} trials"


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
