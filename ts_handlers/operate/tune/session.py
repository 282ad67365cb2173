"""One run of `tune`, from its options to its exit code."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.cpu import CpuBudget, cpu_budget
from ts_handlers.errors import OperatorError
from ts_handlers.memory import memory_limit
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.replacing import remove_parts, replacing
from ts_handlers.operate.torchserve.archives import Archive, read_archive
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME
from ts_handlers.operate.torchserve.process.java import find_java
from ts_handlers.operate.tune.folders import Prior, check_output, place_archive, read_prior, write_output
from ts_handlers.operate.tune.halving import MAX_MEASURED_S, make_plan
from ts_handlers.operate.tune.objective import MIN_REQUESTS, Objective
from ts_handlers.operate.tune.progress import TrialProgress
from ts_handlers.operate.tune.report import REPORT_NAME, conclusion, import_plotly, report_page
from ts_handlers.operate.tune.results import RESULTS_NAME, Outcome, Results, Subject, read_results
from ts_handlers.operate.tune.search import LEAST_OVERHEAD_S, Limits, Search
from ts_handlers.operate.tune.space import Bounds, Setting, candidates, max_workers
from ts_handlers.operate.tune.stop import Stopper
from ts_handlers.operate.tune.subject import make_subject
from ts_handlers.operate.tune.trial import Bench, Load
from ts_handlers.operate.tune.working_copy import has_threads

EXIT_UNMET = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asks for.

    Attributes:
        archive: The .mar file.
        payloads: The file or folder of request bodies.
        output: The folder to write.
        minutes: How long to search.
        slo_p99_ms: Bound on the p99; None: none.
        rate: Requests per second of an open loop; None: a closed loop.
        concurrency: Requests in flight; in an open loop at most so many.
        max_settings: Settings to try, at most.
        trial_s: Seconds a setting is measured in the first round.
        warmup_s: Seconds of load before each measurement.
        is_forced: Whether to start over where the folder holds results of something else.
    """

    archive: Path
    payloads: Path
    output: Path
    minutes: float
    slo_p99_ms: float | None
    rate: float | None
    concurrency: int
    max_settings: int
    trial_s: float
    warmup_s: float
    is_forced: bool


def tune(options: Options) -> int:
    """Search, write the tuned folder, and return the exit code.

    Raises:
        OperatorError: Something is wrong with the archive, the payloads, the folder or the time.
    """
    archive = _read(options.archive)
    load = Load(read_payloads(options.payloads), options.concurrency, options.rate, options.warmup_s)
    _check(options)
    check_output(options.output, archive)
    budget = cpu_budget()
    prior = read_prior(archive, budget)
    default = prior.default
    results = _results(options, make_subject(archive, load, budget), default)
    remove_parts(options.output)
    print(f"machine: {budget.describe()}")
    print(f"looking for {results.objective.describe()}, up to {options.minutes:g} min; default: {default.describe()}")
    _say_known(results)
    settings = candidates(default, _bounds(options, archive, budget, prior))
    with Stopper() as stopper:
        try:
            with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as folder:
                bench = Bench(place_archive(archive, Path(folder)), load, Path(folder), stopper)
                outcome = _search(options, settings, results, bench)
            write_output(options.output, archive, outcome.choice, budget)
        except KeyboardInterrupt:
            print(f"\ninterrupted; {_count(results)} kept in {results.path}")
            print("the same command goes on from there", flush=True)
            return EXIT_INTERRUPTED
        finally:
            with stopper.shield():
                _write_report(options.output, results)
    return _finish(options, results, outcome)


def _bounds(options: Options, archive: Archive, budget: CpuBudget, prior: Prior) -> Bounds:
    return Bounds(
        cpus=budget.cpus,
        max_workers=max(prior.default.workers, max_workers(memory_limit(), prior.worker_bytes)),
        max_batch_size=options.concurrency,
        is_threads_free=has_threads(archive),
    )


def _search(options: Options, settings: Sequence[Setting], results: Results, bench: Bench) -> Outcome:
    if results.outcome is not None:
        return results.outcome
    limits = Limits(60 * options.minutes, options.trial_s, options.max_settings)
    with TrialProgress() as progress:
        return Search(settings, limits, results, bench.measure, progress).run()


def _read(path: Path) -> Archive:
    if not path.is_file():
        raise OperatorError(f"there is no file {path}; give a model archive (.mar)")
    if path.suffix != ".mar":
        raise OperatorError(f"{path} is no .mar file; build one with: ts-handlers build SOURCE ...")
    return read_archive(path)


def _check(options: Options) -> None:
    find_java()
    import_plotly()
    if options.max_settings < 2:
        raise OperatorError(f"--max-settings is {options.max_settings}: give 2 or more, the default is one of them")
    _check_rate(options)
    least_s = make_plan(2, options.trial_s).cost_s(LEAST_OVERHEAD_S)
    if options.minutes * 60 < least_s:
        raise OperatorError(
            f"--minutes {options.minutes:g} is too short for two settings and their comparison; give "
            f"{math.ceil(least_s / 60)} or more, or a shorter --trial-s"
        )


def _check_rate(options: Options) -> None:
    """Check that a trial has enough requests: a block is at least --trial-s long, and at most MAX_MEASURED_S."""
    if options.rate is None or options.rate * min(options.trial_s, MAX_MEASURED_S) >= MIN_REQUESTS:
        return
    least_s = MIN_REQUESTS / options.rate
    remedy = f"--trial-s {math.ceil(least_s)} or more" if least_s <= MAX_MEASURED_S else "a higher --rate, or none"
    raise OperatorError(
        f"at --rate {options.rate:g} a trial of {options.trial_s:g} s has fewer than {MIN_REQUESTS} requests, and a "
        f"single late one would decide; give {remedy}"
    )


def _results(options: Options, subject: Subject, default: Setting) -> Results:
    """Return what is known already, or nothing."""
    path = options.output / RESULTS_NAME
    objective = Objective(options.slo_p99_ms, options.rate)
    if options.is_forced or not path.exists():
        options.output.mkdir(parents=True, exist_ok=True)
        results = Results(path, subject, default, objective)
        results.write()
        return results
    known = read_results(path)
    differences = subject.differences(known.subject)
    if default != known.default:
        differences.append("configure's default")
    if differences:
        raise OperatorError(
            f"{path} is of something else ({', '.join(differences[:4])}); choose another --output, or start over with "
            "--force"
        )
    if known.objective != objective:  # what was measured counts; what was made of it does not
        known.objective, known.outcome = objective, None
    return known


def _say_known(results: Results) -> None:
    if results.outcome is not None:
        print(f"{results.path} holds the whole search; nothing is measured again (--force starts over)", flush=True)
    elif results.trials:
        print(f"going on from {_count(results)} in {results.path}", flush=True)


def _count(results: Results) -> str:
    number = len(results.trials)
    return f"{number} trial" if number == 1 else f"{number} trials"


def _write_report(output: Path, results: Results) -> None:
    if results.trials:
        with replacing(output / REPORT_NAME) as part:
            part.write_text(report_page(results), encoding="utf-8")


def _finish(options: Options, results: Results, outcome: Outcome) -> int:
    print("\n".join(conclusion(results)))
    print(
        f"wrote {options.output}: {options.archive.name}, {CONFIG_NAME}, {METRICS_NAME}, {RESULTS_NAME}, {REPORT_NAME}"
    )
    print(f"next: ts-handlers serve {shlex.quote(str(options.output))}", flush=True)
    return 0 if outcome.is_met else EXIT_UNMET
