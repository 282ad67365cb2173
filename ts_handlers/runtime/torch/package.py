"""Packages (.pt2): a model compiled ahead of time (AOTInductor), or a graph of torch.export that torch interprets.

A compiled one is machine code: on a CPU that lacks an instruction it uses, the worker would die of SIGILL. So what it was
compiled for is checked before it is loaded.
"""

from __future__ import annotations

import logging
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError, first_line
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch.program import Program

logger = logging.getLogger(__name__)

SUFFIX = ".pt2"
CPU_FLAGS_KEY = "ts_handlers_cpu_flags"
"""Metadata of our own packages: flags of /proc/cpuinfo that the code needs, separated by spaces."""

TORCH_KEY = "ts_handlers_torch"
"""Metadata of our own packages: the torch that compiled it."""

_MODEL_NAME = "model"
_FLAGS_OF_ISA = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512_VNNI": "avx512_vnni", "AMX_TILE": "amx_tile"}
"""Instruction sets as torch's own metadata names them -> their flags of /proc/cpuinfo."""


_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


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


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a compiled package says of itself, without loading its code.

    Raises:
        RuntimeUnavailableError: This torch cannot load such packages.
    """
    metadata: dict[str, str] = _loader_class(path.name).load_metadata_from_package(str(path), _MODEL_NAME)
    return metadata


def read_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return all flags of this machine's first CPU."""
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


class _Compiled:
    """Compiled code as a callable on tensors by name."""

    def __init__(self, loader: Any, input_names: tuple[str, ...], output_spec: pytree.TreeSpec) -> None:
        self._loader, self._input_names, self._output_spec = loader, input_names, output_spec

    def __call__(self, **tensors: torch.Tensor) -> Any:
        outputs = self._loader.boxed_run([tensors[name].contiguous() for name in self._input_names])
        return pytree.tree_unflatten(outputs, self._output_spec)


def _open_compiled(path: Path, config: RuntimeConfig, device: torch.device) -> Program:
    """Load compiled code.

    torch's own loader is used directly: `aoti_load_package` first finds out what this CPU can do by running a compiler,
    which a serving image does not have.
    """
    if device.type != "cpu":
        raise ConfigError(f"{path.name} was compiled for the CPU and the worker was given a GPU; set deviceType: cpu")
    loader_class, metadata = _loader_class(path.name), read_metadata(path)
    check_cpu(path.name, metadata, platform.machine(), read_flags())
    os.environ.setdefault("AOTI_RUNTIME_CHECK_INPUTS", "1")  # else an input of another type is read past its end
    try:
        loader = loader_class(str(path), _MODEL_NAME, False, 1, -1)  # one runner: calls are made one by one
    except RuntimeError as error:
        compiler = metadata.get(TORCH_KEY, "of another version")
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} cannot load {path.name}, which torch {compiler} compiled: {first_line(error)}; "
            "serve it with that torch, or build it again"
        ) from error
    input_spec, output_spec = (_tree_spec(path.name, text) for text in loader.get_call_spec())
    names = _keyword_names(path.name, input_spec)
    if input_spec.child(0).num_children:
        raise ConfigError(
            f"{path.name} takes inputs by position, so that they have no names; export it with keyword arguments"
        )
    return Program(
        _Compiled(loader, names, output_spec), names, config.output_names, config.output_keys, required_names=names
    )


def read_exported(path: Path) -> torch.export.ExportedProgram:
    """Read a graph with the tensors beside it.

    Raises:
        ConfigError: It has other objects there, which could run code.
        Exception: Of many kinds: it is none.
    """
    try:
        with _tensors_only():
            return torch.export.load(path)
    except Exception as error:
        if "weights_only" not in str(error):
            raise
        raise ConfigError(
            f"{path} holds more than tensors beside its graph, which is not read: it can run code. Export the model with "
            "tensors alone as its sample inputs and constants"
        ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Keep torch to tensors: torch.export.load unpickles what else there is, and runs it."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def _open_exported(path: Path, config: RuntimeConfig, device: torch.device) -> Program:
    """Load a graph; torch runs its operators one by one."""
    try:
        exported = read_exported(path)
        module = exported.module().to(device)
    except ConfigError:
        raise
    except Exception as error:  # torch.export raises errors of many kinds
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} cannot load {path.name}: {first_line(error)}"
        ) from error
    keywords = _keyword_names(path.name, exported.call_spec.in_spec)
    by_position = tuple(exported.graph_signature.user_inputs[: exported.call_spec.in_spec.child(0).num_children])

    def call(**tensors: torch.Tensor) -> Any:
        return module(*[tensors[name] for name in by_position], **{name: tensors[name] for name in keywords})

    names = (*by_position, *keywords)
    return Program(
        call,
        names,
        config.output_names,
        config.output_keys,
        required_names=names,
        input_types=_input_types(exported),
        device=device,
    )


def _input_types(exported: torch.export.ExportedProgram) -> dict[str, torch.dtype]:
    """Return the types that a graph was exported with: it takes no others."""
    taken = set(exported.graph_signature.user_inputs)
    return {
        node.name: node.meta["val"].dtype
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in taken and isinstance(node.meta.get("val"), torch.Tensor)
    }


def _keyword_names(name: str, spec: pytree.TreeSpec) -> tuple[str, ...]:
    """Return the names of a package's keyword arguments; all arguments must be tensors."""
    arguments, keywords = spec.child(0), spec.child(1)
    if not all(child.is_leaf() for group in (arguments, keywords) for child in group.children()):
        raise ConfigError(f"{name} takes lists or mappings of tensors; export a model that takes tensors")
    return tuple(keywords.context)


def _tree_spec(name: str, text: str) -> pytree.TreeSpec:
    try:
        return pytree.treespec_loads(text)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"{name} takes or returns a type that torch cannot restore ({first_line(error)}); export a model that returns "
            "tensors, or a tuple or dict of them"
        ) from error


def _loader_class(name: str) -> Any:
    try:
        return torch._C._aoti.AOTIModelPackageLoader  # noqa: SLF001  # it reads metadata without loading the code
    except AttributeError as error:
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} cannot load compiled packages, and {name} is one; install torch 2.9 or later"
        ) from error
