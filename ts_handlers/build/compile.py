"""A torch module -> a package (.pt2) of compiled code: exported by torch.export, compiled for a CPU by AOTInductor."""

from __future__ import annotations

import copy
import inspect
import os
import platform
import shlex
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental import _config as symbolic_shapes

from ts_handlers.build.sources.texts import Source
from ts_handlers.build.target import NATIVE, TargetCpu, target_cpu
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.runtime.torch.package import CPU_FLAGS_KEY, TORCH_KEY, read_flags

LEAST_LENGTH = 2
"""Attention is exported for two tokens and more, which is what a text has with its special tokens."""

EXAMPLES = ("dynamic axes", "need two texts of one padded length")

_V2 = ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_LEVELS = (("x86-64-v4", None, _V4), ("x86-64-v3", 256, _V3), ("x86-64-v2", 1, _V2))
"""Levels of the x86-64 ABI, which compilers take as -march; inductor's `cpp.simdlen`, the width of its vectors (None: the
best that this CPU has, 1: no vectors); flags of /proc/cpuinfo."""

_KERNELS = ("amx_bf16", "amx_int8", "amx_tile", "avx512_vnni")
"""Flags of what inductor's own kernels use beyond the level v4."""


def check_compiler() -> None:
    """Refuse to begin what ends at a missing compiler.

    Raises:
        OperatorError: There is no C++ compiler.
    """
    command = shlex.split(os.environ.get("CXX", "g++"))[0]
    if shutil.which(command) is None:
        raise OperatorError(
            f"torch compiles with a C++ compiler, and {command} is not found; install g++ in the build image (the serving "
            "image needs none), or set CXX, or build with --form eager"
        )


def compile_package(
    program: torch.export.ExportedProgram, path: Path, target: TargetCpu, scratch: Path
) -> dict[str, Any]:
    """Compile a graph for a CPU.

    Args:
        program: The graph; its constants are folded and its weights packed.
        path: The package, ending in .pt2.
        target: The CPU that will serve.
        scratch: Folder for the compiler's files.

    Returns:
        What was done, for the build report.

    Raises:
        OperatorError: The compiler fails, or no code can be made here for that CPU.
    """
    is_here = target == target_cpu(NATIVE)
    march, width, flags = instructions(target, platform.machine(), read_flags(), is_here=is_here)
    options: dict[str, Any] = {
        "freezing": True,  # weights are constants, packed for the kernels of oneDNN
        "cpp.dynamic_threads": True,  # else the number of threads of the build is the worker's too
        "cpp.march": march,
        "cpp.simdlen": width,
        "compile_threads": 1,
        "aot_inductor.precompile_headers": False,  # pays from the third package on
        "aot_inductor.metadata": {CPU_FLAGS_KEY: " ".join(flags), TORCH_KEY: torch.__version__},
    }
    from torch._inductor import aoti_compile_and_package  # a large import
    from torch._inductor.utils import fresh_cache

    try:
        # without no_grad nothing is frozen; inductor never deletes the code of a package
        with torch.no_grad(), sizes_from_one(), fresh_cache(dir=str(scratch)):
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:  # inductor raises errors of many kinds, the compiler's among them
        raise OperatorError(
            f"torch cannot compile the model: {first_line(error)}; build it with --form eager"
        ) from error
    return {"torch": torch.__version__, "march": march, "cpu_flags": flags}


def instructions(
    target: TargetCpu, machine: str, flags: frozenset[str], *, is_here: bool
) -> tuple[str | None, int | None, tuple[str, ...]]:
    """Return -march and `cpp.simdlen` (None: this machine's), and the flags of /proc/cpuinfo that code needs.

    Vectors of AVX-512 are used where the target is this machine, or the best there is: inductor takes all of AVX-512 that
    this machine has.

    Args:
        target: The CPU that will serve.
        machine: Architecture of this machine, as `platform.machine()` has it; it tries the code.
        flags: Its flags of /proc/cpuinfo.
        is_here: Whether the target is this machine.

    Raises:
        OperatorError: The target is of another architecture, or this CPU is older than any that code is compiled for.
    """
    is_arm = machine in ("aarch64", "arm64")
    if target.is_arm != is_arm:
        raise OperatorError(
            f"--target-cpu {target.name}: code is compiled for the architecture of the building machine, {machine}; build "
            "there, or with --form eager"
        )
    if is_arm:
        return None, None, tuple(sorted(flags))
    best = 0 if is_here or target.name == "amx" else 2 if target.name == "sse4" else 1
    for march, width, needed in _LEVELS[best:]:
        if set(needed) <= flags:
            kernels = (flag for flag in _KERNELS if width is None and flag in flags)
            return march, width, (*needed, *kernels)
    missing = ", ".join(flag for flag in _V2 if flag not in flags)
    raise OperatorError(f"this CPU lacks {missing}, which compiled code needs at least; build with --form eager")


class Named(torch.nn.Module):
    """The model with its inputs by name and its outputs in a dict: what a worker feeds and reads by name.

    Args:
        model: The model, as transformers made it.
        source: Whose inputs and outputs it has.
        autocast: Type that matrix products are computed in; None: that of their operands.
    """

    def __init__(self, model: torch.nn.Module, source: Source, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self._output_names, self._autocast = source.output_names, autocast
        self.forward = _named_parameters(self._run, source.input_names)

    def _run(self, **arrays: torch.Tensor) -> dict[str, torch.Tensor]:
        with nullcontext() if self._autocast is None else torch.autocast("cpu", self._autocast):
            outputs = self.model(**arrays, return_dict=True)
        return {name: outputs[name].float() for name in self._output_names}


def copy_model(source: Source) -> Any:
    """Return a copy of the model to change, with the attention that torch has a kernel for, where the model offers it."""
    model = copy.deepcopy(source.model)
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:  # an architecture without it keeps its own
        model.set_attn_implementation("eager")
    return model.eval()


def export_model(
    source: Source, model: torch.nn.Module, autocast: torch.dtype | None = None
) -> torch.export.ExportedProgram:
    """Export a checkpoint's model.

    Raises:
        OperatorError: It cannot be exported.
    """
    return export_module(source, Named(model, source, autocast).eval())


def export_module(source: Source, module: torch.nn.Module) -> torch.export.ExportedProgram:
    """Export a module that takes the source's inputs by name.

    Raises:
        OperatorError: It cannot be exported, or its shortest sequence is too short.
    """
    if source.tokenizer.num_special_tokens_to_add() < LEAST_LENGTH:
        raise OperatorError(
            f"{source.folder} makes sequences of one token, and models are compiled for {LEAST_LENGTH} and more; build it "
            "with --form eager, or for the onnx backend"
        )
    batch = torch.export.Dim("batch", min=1)
    length = torch.export.Dim("length", min=LEAST_LENGTH, max=source.max_length)
    feed = tokenized(source, EXAMPLES)
    shapes = {name: {0: batch, 1: length} for name in feed}
    try:
        with torch.no_grad(), sizes_from_one():
            program = torch.export.export(module, (), feed, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of many kinds
        raise OperatorError(
            f"torch.export cannot export {type(source.model).__name__} ({first_line(error)}); build it with --form eager, "
            "or for the onnx backend"
        ) from error
    return program


def sizes_from_one() -> AbstractContextManager[None]:
    """Treat the size of a batch as unknown from 1 on; torch otherwise exports and compiles for 2 and more.

    It tells 1 apart, because an axis of one element can be broadcast.
    """
    config: Any = symbolic_shapes  # its methods are added when it is imported
    patch: AbstractContextManager[None] = config.patch(backed_size_oblivious=True)
    return patch


def tokenized(source: Source, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return texts as the model's inputs, padded to the longest."""
    encoded = source.tokenizer(list(texts), padding=True, return_tensors="pt")
    return {name: encoded[name] for name in source.input_names}


def _named_parameters(function: Any, names: Sequence[str]) -> Any:
    """Give a function of keywords a signature with these parameters, which torch.export reads the names from."""

    def forward(**arrays: torch.Tensor) -> Any:
        return function(**arrays)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return forward
