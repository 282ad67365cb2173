"""Is this the CPU that the archive's integers were chosen for? Said once, when a worker opens its model."""

from __future__ import annotations

import logging

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError
from ts_handlers.machine.features import TARGETS, CpuInfo, TargetCpu, read_cpuinfo

logger = logging.getLogger(__name__)


def check_target(config: RuntimeConfig, info: CpuInfo | None = None) -> None:
    """Warn where the archive was built for a CPU that can do more than this one; say so where it was built for less.

    Args:
        config: `handler.runtime`; without a target_cpu nothing is said.
        info: This machine; by default read from /proc/cpuinfo.

    Raises:
        ConfigError: handler.runtime.target_cpu is no target.
    """
    if config.target_cpu is None:
        return
    if config.target_cpu not in TARGETS:
        raise ConfigError(f"handler.runtime.target_cpu is {config.target_cpu!r}; choose one of {', '.join(TARGETS)}")
    built_for, here = TARGETS[config.target_cpu], (info or read_cpuinfo()).target
    if built_for.is_arm != here.is_arm:
        logger.warning(
            "ts_handlers: the model was built for %s and this CPU is %s, of another architecture: it may be wrong or slow "
            "here; build it again with --target-cpu %s",
            *(built_for.name, here.name, here.name),
        )
        return
    if config.precision == "int8":
        _check_int8(built_for, here)
    computes_in_bf16 = "bf16" in (config.precision, config.float_precision)
    if computes_in_bf16 and built_for.has_bf16 and not here.has_bf16:
        logger.warning(
            "ts_handlers: the model was built with bf16 for %s and this CPU (%s) only emulates bf16: its answers are right "
            "and come later than in fp32; build it again with --target-cpu %s",
            built_for.name,
            here.name,
            here.name,
        )


def _check_int8(built_for: TargetCpu, here: TargetCpu) -> None:
    if built_for.has_vnni and not here.has_vnni:
        logger.warning(
            "ts_handlers: the INT8 weights were made for %s, in 8 bits, and this CPU (%s) has no VNNI: sums of their "
            "products saturate, and answers are wrong, unless the engine takes slower products; build it again with "
            "--target-cpu %s",
            built_for.name,
            here.name,
            here.name,
        )
    elif here.has_vnni and not built_for.has_vnni:
        logger.info(
            "ts_handlers: the INT8 weights were made for %s, in 7 bits, and this CPU (%s) can multiply 8: right, and "
            "nearer to fp32 if it is built again with --target-cpu %s",
            built_for.name,
            here.name,
            here.name,
        )
