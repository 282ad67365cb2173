"""One model that is to be served: what its archive and its build say of it, what the operator asked for, what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.build.report import BuildReport
from ts_handlers.config.sections import DEFAULT_BODY_BYTES, ROOT, LimitsConfig
from ts_handlers.config.settings import from_mapping
from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.options import BATCH_SIZES, MAX_BATCH_SIZE, Options
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.operate.torchserve.models import DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model. What its model-config.yaml says goes before everything else, as in TorchServe.

    Attributes:
        archive: Its archive.
        report: What its build measured.
        is_default: Whether requests that name no version go to it.
        fixed: Keys that its model-config.yaml decides.
        min_workers: Workers it starts with; 0 until they are decided.
        max_workers: Workers it may be scaled to.
        batch_size: Requests a worker takes at once, at most.
        max_batch_delay_ms: How long a worker waits for its batch to fill.
        response_timeout_s: Seconds a worker may take for a batch.
        startup_timeout_s: Seconds a worker may take to load.
        largest_request: Bytes of the largest request that its own limits allow; of another's handler TorchServe's default.
    """

    archive: Archive
    report: BuildReport
    is_default: bool
    fixed: tuple[str, ...]
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_s: int
    startup_timeout_s: int
    largest_request: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.archive.model_name

    @property
    def label(self) -> str:
        """Its name and version."""
        return f"{self.name} {self.archive.version}"


def make_model(archive: Archive, report: BuildReport, options: Options, *, is_default: bool) -> Model:
    """Decide all but the workers; a model-config.yaml without a timeout means TorchServe's own.

    Raises:
        OperatorError: Its batches are absurdly large.
        ConfigError: Its limits cannot be read.
    """
    has_yaml, found = archive.settings is not None, archive.setting
    minimum, maximum = found("minWorkers") or 0, found("maxWorkers") or 0
    is_fixed = 0 < minimum <= maximum  # TorchServe ignores both else
    fixed = {
        "minWorkers": is_fixed,
        "maxWorkers": is_fixed,
        "responseTimeout": has_yaml,
        "startupTimeout": has_yaml,
        "batchSize": found("batchSize"),
        "maxBatchDelay": found("maxBatchDelay"),
    }
    batch_size = found("batchSize") or options.batch_size or BATCH_SIZES[options.profile]
    if batch_size > MAX_BATCH_SIZE:
        raise OperatorError(
            f"{archive.path.name}: batches of {batch_size} requests are more than {MAX_BATCH_SIZE}; set a smaller "
            "batchSize in its model-config.yaml"
        )
    return Model(
        archive,
        report,
        is_default,
        fixed=tuple(key for key, is_set in fixed.items() if is_set),
        min_workers=minimum if is_fixed else 0,
        max_workers=maximum if is_fixed else 0,
        batch_size=batch_size,
        max_batch_delay_ms=found("maxBatchDelay") or options.max_batch_delay_ms,
        response_timeout_s=found("responseTimeout") or (DEFAULT_TIMEOUT_S if has_yaml else options.response_timeout_s),
        startup_timeout_s=found("startupTimeout") or (DEFAULT_TIMEOUT_S if has_yaml else options.startup_timeout_s),
        largest_request=_largest_request(archive),
    )


def _largest_request(archive: Archive) -> int:
    handler = (archive.settings or {}).get("handler")
    if not isinstance(handler, Mapping) or not isinstance(handler.get("task"), str):
        return DEFAULT_BODY_BYTES
    limits = from_mapping(LimitsConfig, handler.get("limits", {}), f"{archive.path}: {ROOT}.limits")
    return limits.max_body_bytes(is_image=handler["task"].startswith(("image-", "object-")))
