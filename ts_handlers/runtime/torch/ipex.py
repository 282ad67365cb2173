"""Intel Extension for PyTorch: eager modules with its kernels and packed weights, in fp32 or bf16, on the CPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from types import ModuleType

import torch

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.machine import CpuShare
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch.module import accepted_inputs, load_module
from ts_handlers.runtime.torch.program import Program
from ts_handlers.shapes import Array

logger = logging.getLogger(__name__)

PACKAGE = "intel-extension-for-pytorch"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class IpexSession:
    """A PyTorch module that the extension has optimized."""

    max_parallel = 1  # torch spreads a call over its threads, and each calling thread would start as many
    runs_on_device = False

    def __init__(self, config: RuntimeConfig, files: ModelFiles) -> None:
        if config.precision not in _DTYPES:
            raise ConfigError(
                f"handler.runtime.precision is {config.precision}; the ipex backend runs {' or '.join(_DTYPES)}"
            )
        if files.gpu_id is not None:
            logger.warning("GPU %d is not used: the ipex backend runs on the CPU", files.gpu_id)
        self._ipex, self._precision = import_ipex(), config.precision
        self._program = self._open(config, files)

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        """Run one batch; the model decides which arrays are fed."""
        del num_parallel
        return self._program.run(arrays)

    def change_threads(self, share: CpuShare) -> None:
        """Do nothing: torch's threads are the process's own, and have been changed."""

    def describe(self) -> str:
        """Say both versions and the precision."""
        return f"ipex {self._ipex.__version__} with torch {torch.__version__} on cpu, {self._precision}"

    def _open(self, config: RuntimeConfig, files: ModelFiles) -> Program:
        """Load the module and optimize it; bf16 is autocast's, as in the torch backend."""
        module = load_module(config, files)
        names = accepted_inputs(module)  # optimized modules need not say them
        dtype = _DTYPES[config.precision]
        # without the selection linear layers in fp32 are MKL's, which is slow on CPUs that are not Intel's
        optimized = self._ipex.optimize(module, dtype=dtype, inplace=True, auto_kernel_selection=True)
        autocast = None if dtype == torch.float32 else dtype
        return Program(optimized, names, config.output_names, config.output_keys, autocast=autocast)


def import_ipex() -> ModuleType:
    """Import the extension.

    Its version is compared with torch's first: on another torch it tries to end the process while it is imported.

    Raises:
        RuntimeUnavailableError: It is not there, or made for another torch.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeUnavailableError(f"{PACKAGE} is not installed; install ts_handlers[ipex]") from error
    if _minor(version) != _minor(torch.__version__):
        raise RuntimeUnavailableError(
            f"{PACKAGE} {version} needs torch {_minor(version)} and this is torch {torch.__version__}; install "
            "ts_handlers[ipex] into an environment of its own"
        )
    try:
        return importlib.import_module("intel_extension_for_pytorch")
    except (
        ImportError,
        OSError,
        NameError,
    ) as error:  # a library that cannot be loaded; a name that transformers 5 lost
        raise RuntimeUnavailableError(
            f"{PACKAGE} {version} cannot be imported ({error}); install ts_handlers[ipex], with its transformers 4, into an "
            "environment of its own"
        ) from error


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
