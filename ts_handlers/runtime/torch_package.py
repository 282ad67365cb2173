"""Packages (.pt2): a model compiled ahead of time (AOTInductor), or a graph of torch.export that torch interprets.

A compiled one is machine code: on a CPU that lacks an instruction it uses, the worker would die of SIGILL. So what it was
compiled for is checked before it is loaded.
"""

from __future__ import annotations

import logging
import os
import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ts_handlers.config import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch_program import Program

logger = logging.getLogger(__name__)

SUFFIX = ".pt2"
CPU_FLAGS_KEY = "ts_handlers_cpu_flags"
"""Metadata of our own packages: flags of /proc/cpuinfo that the code needs, separated by spaces."""

TORCH_KEY = "ts_handlers_torch"
"""Metadata of our own packages: the torch that compiled it."""

_MODEL_NAME = "model"
_FLAGS_OF_ISA = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512_VNNI": "avx512_vnni", "AMX_TILE": "amx_tile"}
"""Instruction sets as torch's own metadata names them -> their flags of /proc/cpuinfo."""


def is_package(name: str | None) -> bool:
    """Say whether a serialized file is a package."""
    return name is not None and name.endswith(SUFFIX)


def open_package(config: RuntimeConfig, files: ModelFiles, device: torch.device) -> tuple[Program, str]:
    """Load a package; return it, and what it is in a few words.

    Raises:
        ConfigError: It is no package, was compiled for another CPU, or its inputs have no names.
        RuntimeUnavailableError: This torch cannot load it.
    """
    path = files.path(config.file)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ConfigError(f"{path.name} is no package of torch.export or AOTInductor: {error}") from error
    if any("/data/aotinductor/" in name for name in names):
        return _open_compiled(path, config, device), f"{config.precision}, compiled ahead of time"
    return _open_exported(path, config, device), f"{config.precision}, an exported graph"


def check_cpu(name: str, metadata: Mapping[str, str], machine: str, flags: frozenset[str]) -> None:
    """Compare what a package was compiled for with a CPU.

    Args:
        name: The package's name.
        metadata: The package's.
        machine: Architecture, as `platform.machine()` has it.
        flags: Flags of /proc/cpuinfo.

    Raises:
        ConfigError: The CPU lacks something.
    """
    built_on = metadata.get("AOTI_MACHINE", machine)
    if built_on != machine:
        raise ConfigError(f"{name} was compiled for {built_on} and this machine is {machine}; build it for {machine}")
    missing = [flag for flag in needed_flags(metadata) if flag not in flags]
    if missing:
        raise ConfigError(
            f"{name} was compiled for a CPU with {', '.join(missing)}, which this one does not have; build it with "
            "--target-cpu set to the serving CPU"
        )


def needed_flags(metadata: Mapping[str, str]) -> list[str]:
    """Return the flags of /proc/cpuinfo that a package needs, as far as its metadata say."""
    if CPU_FLAGS_KEY in metadata:
        return metadata[CPU_FLAGS_KEY].split()
    return [_FLAGS_OF_ISA[name] for name in metadata.get("AOTI_CPU_ISA", "").split() if name in _FLAGS_OF_ISA]


def read_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return all flags of this machine's first CPU."""
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
