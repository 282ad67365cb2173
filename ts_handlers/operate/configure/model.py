"""One model that is to be served: what its archive and its build say of it, what the operator asked for, what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ts_handlers.build.report import BuildReport
from ts_handlers.config.sections import DEFAULT_BODY_BYTES, ROOT, LimitsConfig
from ts_handlers.config.settings import from_mapping
from ts_handlers.operate.arguments import option, whole
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.models import DEFAULT_TIMEOUT_S, MAX_WORKERS

Profile = Literal["throughput", "latency"]

BATCH_SIZES: Mapping[Profile, int] = {"throughput": 8, "latency": 1}
MAX_BATCH_SIZE = 4096
MAX_BATCH_DELAY_MS = 1
"""The smallest delay TorchServe takes: it makes 100 of 0."""

_SIZES = ", ".join(f"{size} for {profile}" for profile, size in BATCH_SIZES.items())
_A_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may ask for the workers; each field is an option, and says what it is."""

    profile: Profile = option(
        "throughput",
        "throughput: a worker with one thread on each CPU; latency: fewer with more threads, single requests, short queues",
        choices=get_args(Profile),
    )
    gpus: int = option(0, "GPUs: a worker of each model on each", "N", whole(0, 64))
    workers: int | None = option(None, "workers of each model (default: share the budget)", "N", whole(1, MAX_WORKERS))
    batch_size: int | None = option(
        None, f"requests a worker takes at once, at most (default: {_SIZES})", "N", whole(1, MAX_BATCH_SIZE)
    )
    max_batch_delay_ms: int = option(
        MAX_BATCH_DELAY_MS, "how long a worker waits for its batch to fill", "MS", whole(1, 60_000)
    )
    response_timeout_s: int = option(120, "seconds a worker may take for a batch", "S", whole(1, _A_DAY_S))
    startup_timeout_s: int = option(300, "seconds a worker may take to load its model", "S", whole(1, _A_DAY_S))


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

    @property
    def largest_request(self) -> int:
        """Bytes of the largest request that its own limits allow; of another's handler TorchServe's default.

        Raises:
            ConfigError: Its limits cannot be read.
        """
        handler = (self.archive.settings or {}).get("handler")
        if not isinstance(handler, Mapping) or not isinstance(handler.get("task"), str):
            return DEFAULT_BODY_BYTES
        limits = from_mapping(LimitsConfig, handler.get("limits", {}), f"{self.archive.path}: {ROOT}.limits")
        return limits.max_body_bytes(is_image=handler["task"].startswith(("image-", "object-")))

    def _timeout(self, key: str, asked: int) -> int:
        """Return a timeout: a model-config.yaml without it means TorchServe's own."""
        return asked if self.archive.settings is None else self.archive.setting(key) or DEFAULT_TIMEOUT_S
