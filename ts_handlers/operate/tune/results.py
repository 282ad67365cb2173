"""results.json: what was measured, for what and on what; written after every trial, and read to go on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ts_handlers.config.reading import load_json
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.machine.features import read_cpuinfo
from ts_handlers.machine.memory import memory_limit
from ts_handlers.operate.load.generator import LoadSpec
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.process.java import find_java

RESULTS_NAME = "results.json"
FORMAT = "ts-handlers tune 2"

MET = 2
"""The rank of a measurement that meets the objective."""

KEEPS_UP_SHARE = 0.97
"""A server keeps up with a rate if it answers so much of it: the last requests of a trial are still on their way."""


_ENGINES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
_PACKAGES = (*_ENGINES, "tokenizers", "torchserve", "transformers", "ts_handlers")
_VARIABLES = ("LD_PRELOAD", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_OUR_VARIABLES = "TS_HANDLERS_"
"""Beginning of the names of the variables that set something of ts_handlers."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a server is started with.

    Attributes:
        workers: Worker processes.
        threads: Threads of each worker's pools.
        batch_size: Requests a worker takes at once, at most.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
    """

    workers: int
    threads: int
    batch_size: int
    max_batch_delay_ms: int

    def describe(self) -> str:
        """Say the setting in a few words."""
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} x {self.threads} thread{'s' * (self.threads > 1)}"
        delay = "" if self.batch_size == 1 else f", delay {self.max_batch_delay_ms} ms"
        return f"{workers}, batch {self.batch_size}{delay}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One server that was started and measured.

    Attributes:
        setting: What it was started with.
        start_s: Seconds until every worker was ready; 0 if they never were.
        total_s: Seconds from start to end.
        measured: What was measured; None where it failed.
        reason: Why it failed; None where it did not.
    """

    setting: Setting
    start_s: float
    total_s: float
    measured: LoadResult | None = None
    reason: str | None = None

    def describe(self) -> str:
        """Say what came of it in a line."""
        return (
            f"{self.setting.describe()}: {f'failed: {self.reason}' if self.measured is None else shown(self.measured)}"
        )


@dataclass(frozen=True, slots=True)
class Objective:
    """What the operator wants.

    Attributes:
        slo_p99_ms: Bound on the 99th percentile; None: none.
        rate: Requests per second of an open loop; None: a closed loop, which asks for as many as it can.
    """

    slo_p99_ms: float | None = None
    rate: float | None = None

    def describe(self) -> str:
        """Say what is looked for."""
        slo = "" if self.slo_p99_ms is None else f" with a p99 of at most {self.slo_p99_ms:g} ms"
        if self.rate is None:
            return f"the most requests per second{slo}"
        return f"the lowest p99 at {self.rate:g} requests per second{slo}"

    def score(self, measured: LoadResult) -> tuple[int, float]:
        """Return what orders measurements, larger is better.

        First by rank: MET meets the objective, 1 misses the bound on the p99, 0 does not keep up with the rate. Within a
        rank by requests per second, or by the inverse of the p99 where the p99 is what counts.
        """
        rate, p99_ms = measured.requests_per_second, measured.p99_ms or math.inf
        if self.rate is not None and rate < KEEPS_UP_SHARE * self.rate:
            return 0, rate
        if self.slo_p99_ms is not None and p99_ms > self.slo_p99_ms:
            return 1, 1 / p99_ms
        return MET, rate if self.rate is None else 1 / p99_ms


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a search.

    Attributes:
        choice: The setting that was chosen.
        is_met: Whether it meets the objective.
        sentences: What was compared, and why it was chosen; for people, without markup.
    """

    choice: Setting
    is_met: bool
    sentences: tuple[str, ...]


@dataclass
class Results:
    """Everything that is known, and its file.

    Attributes:
        path: The results.json.
        measured_on: What the figures are of (archive, payloads, load, machine): they are comparable only if it is the
            same.
        default: What `configure` chooses.
        objective: What is looked for.
        trials: Every trial, in order.
        outcome: What came of it; None while the search runs or if it was interrupted.
    """

    path: Path
    measured_on: Mapping[str, str]
    default: Setting
    objective: Objective
    trials: list[Trial] = field(default_factory=list)
    outcome: Outcome | None = None

    def blocks(self) -> dict[Setting, list[LoadResult]]:
        """Return the measurements of each setting that never failed; those of the default are the first."""
        failed = {trial.setting for trial in self.trials if trial.measured is None}
        found: dict[Setting, list[LoadResult]] = {}
        for trial in self.trials:
            if trial.measured is not None and trial.setting not in failed:
                found.setdefault(trial.setting, []).append(trial.measured)
        return found

    def write(self) -> None:
        """Replace the file in one step.

        Raises:
            OperatorError: Its folder may not be written.
        """
        content = {"format": FORMAT, **asdict(self)}
        del content["path"]
        with replacing(self.path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def read_trials(self) -> None:
        """Take over the trials of a results.json of the same archive, payloads, load and machine.

        Trials that failed in a search that did not end are forgotten: their cause may have been repaired.

        Raises:
            OperatorError: The file was not written by this version of `tune`, or its figures are of something else.
        """
        try:
            content = load_json(self.path)
            there, is_complete = {"format": content["format"], **content["measured_on"]}, content["outcome"] is not None
            trials = [_trial(**trial) for trial in content["trials"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OperatorError(
                f"{self.path} was not written by this version of tune ({type(error).__name__}: {error}); choose another "
                "--output, or start over with --force"
            ) from error
        here = {"format": FORMAT, **self.measured_on}
        keys = dict.fromkeys((*here, *there))
        others = [f"{key} ({there.get(key)} there)" for key in keys if here.get(key) != there.get(key)]
        if others:
            raise OperatorError(
                f"{self.path} is of something else: {', '.join(others[:4])}; choose another --output, or start over "
                "with --force"
            )
        self.trials = [trial for trial in trials if is_complete or trial.measured is not None]


def read_conditions(archive: Archive, load: LoadSpec, budget: CpuBudget) -> dict[str, str]:
    """Say what figures of this archive, under this load, on this machine depend on."""
    payloads = hashlib.sha256()
    for payload in load.payloads:
        for part in (payload.content_type.encode(), payload.body):
            payloads.update(b"%d:" % len(part) + part)
    info = read_cpuinfo()
    installed = {each.name: each.version for each in distributions()}
    versions = [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    return {
        "model": f"{archive.model_name} {archive.version}",
        "archive": f"SHA-256 {_sha256(archive.path)}",
        "payloads": f"{len(load.payloads)}, SHA-256 {payloads.hexdigest()}",
        "load": ("as fast as answered" if load.rate is None else f"{load.rate:g} requests/s"),
        "requests in flight": str(load.concurrency),
        "seconds": f"{load.duration_s:g} measured after {load.warmup_s:g} of warm-up",
        "CPU": f"{info.model_name or platform.machine()}, {info.num_logical} logical CPUs",
        "instruction sets": ", ".join(info.instruction_sets) or "none that matter",
        "CPU budget": budget.describe(),
        "memory": f"{memory_limit() / 2**30:.1f} GiB",
        "versions": ", ".join((f"Python {platform.python_version()}", f"Java {find_java().version}", *versions)),
        "environment": speed_variables(os.environ) or "nothing that matters",
    }


def speed_variables(environ: Mapping[str, str]) -> str:
    """Return the variables that a worker inherits and that change its speed; an empty one is as good as none."""
    names = sorted(name for name in environ if name in _VARIABLES or name.startswith(_OUR_VARIABLES))
    return ", ".join(f"{name}={environ[name]}" for name in names if environ[name])


def shown(*blocks: LoadResult) -> str:
    """Return rates and latencies for people."""
    rates = ", ".join(f"{block.requests_per_second:.1f}" for block in blocks)
    return f"{rates} requests/s, p99 {', '.join(f'{block.p99_ms or 0:.1f}' for block in blocks)} ms"


def _trial(setting: Mapping[str, int], measured: Mapping[str, Any] | None, **others: Any) -> Trial:
    result = None if measured is None else LoadResult(**{**measured, "timeline": ()})
    return Trial(Setting(**setting), measured=result, **others)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
