"""One model that is to be served: what its archive and its build say of it, what the operator asked for, what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ts_handlers.build.report import BuildReport
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.models import DEFAULT_TIMEOUT_S

Profile = Literal["throughput", "latency"]

BATCH_SIZES: Mapping[Profile, int] = {"throughput": 8, "latency": 1}
MAX_BATCH_DELAY_MS = 1
"""The smallest delay TorchServe takes: it makes 100 of 0."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may ask for.

    Attributes:
        profile: What the machine is to be good at; what is asked for below goes before it.
        workers: Workers of each model; None to share the budget.
        batch_size: Requests a worker takes at once, at most; None: the profile's.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
        response_timeout_s: After so many seconds without an answer TorchServe kills a worker.
        startup_timeout_s: How long a worker may take to load its model.
        gpus: GPUs the workers may use.
    """

    profile: Profile = "throughput"
    workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int = MAX_BATCH_DELAY_MS
    response_timeout_s: int = 120
    startup_timeout_s: int = 300
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model. What its model-config.yaml says goes before everything else, as in TorchServe.

    Attributes:
        archive: Its archive.
        report: What its build measured.
        options: What the operator asked for.
        is_default: Whether requests that name no version go to it.
        min_workers: Workers it starts with; 0 until they are decided.
    """

    archive: Archive
    report: BuildReport
    options: Options
    is_default: bool
    min_workers: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self.archive.model_name

    @property
    def version(self) -> str:
        """Its version."""
        return self.archive.version

    @property
    def label(self) -> str:
        """Its name and version."""
        return f"{self.name} {self.version}"

    @property
    def fixed_workers(self) -> tuple[int, int] | None:
        """(minWorkers, maxWorkers) of model-config.yaml where TorchServe would use them."""
        minimum, maximum = self.archive.setting("minWorkers"), self.archive.setting("maxWorkers")
        return (minimum, maximum) if minimum and maximum and maximum >= minimum else None

    @property
    def fixed(self) -> tuple[str, ...]:
        """Keys that model-config.yaml decides."""
        return (
            *(("minWorkers", "maxWorkers") if self.fixed_workers else ()),
            *(("responseTimeout", "startupTimeout") if self.archive.settings is not None else ()),
            *(key for key in ("batchSize", "maxBatchDelay") if self.archive.setting(key)),
        )

    @property
    def max_workers(self) -> int:
        """Workers it may be scaled to."""
        return self.fixed_workers[1] if self.fixed_workers else self.min_workers

    @property
    def batch_size(self) -> int:
        """Requests a worker takes at once, at most."""
        return self.archive.setting("batchSize") or self.options.batch_size or BATCH_SIZES[self.options.profile]

    @property
    def max_batch_delay_ms(self) -> int:
        """How long a worker waits for its batch to fill."""
        return self.archive.setting("maxBatchDelay") or self.options.max_batch_delay_ms

    @property
    def response_timeout_s(self) -> int:
        """Seconds a worker may take for a batch."""
        return self._timeout("responseTimeout", self.options.response_timeout_s)

    @property
    def startup_timeout_s(self) -> int:
        """Seconds a worker may take to load."""
        return self._timeout("startupTimeout", self.options.startup_timeout_s)

    def _timeout(self, key: str, asked: int) -> int:
        """Return a timeout: a model-config.yaml without it means TorchServe's own."""
        return asked if self.archive.settings is None else self.archive.setting(key) or DEFAULT_TIMEOUT_S
