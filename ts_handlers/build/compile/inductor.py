"""An exported graph -> a package of compiled code, by AOTInductor."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ts_handlers.build.compile.instructions import Instructions, choose_instructions
from ts_handlers.build.compile.program import sizes_from_one
from ts_handlers.build.target import TargetCpu
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.runtime.torch_package import CPU_FLAGS_KEY, TORCH_KEY, read_flags, read_metadata

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_OPTIONS: Mapping[str, Any] = {
    "freezing": True,  # weights are constants, packed for the kernels of oneDNN
    "cpp.dynamic_threads": True,  # else the number of threads of the build is the worker's too
    "compile_threads": 1,
    "aot_inductor.precompile_headers": False,  # pays from the third package on
}


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
        OperatorError: There is no compiler, it fails, or it makes code for another CPU.
    """
    check_compiler()
    instructions = choose_instructions(target, platform.machine(), read_flags())
    metadata = {CPU_FLAGS_KEY: " ".join(instructions.flags), TORCH_KEY: torch.__version__}
    options = {**_OPTIONS, "cpp.march": instructions.march, "aot_inductor.metadata": metadata}
    from torch._inductor import aoti_compile_and_package  # a large import

    try:
        # without no_grad nothing is frozen
        with torch.no_grad(), sizes_from_one(), _cache_in(scratch), _vector_isa(instructions) as name:
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:  # inductor raises errors of many kinds, the compiler's among them
        raise OperatorError(
            f"torch cannot compile the model: {first_line(error)}; build it with --form eager"
        ) from error
    _check_isa(path, name)
    return {
        "torch": torch.__version__,
        "vector_isa": name,
        "march": instructions.march,
        "cpu_flags": instructions.flags,
    }


@contextmanager
def _vector_isa(instructions: Instructions) -> Iterator[str]:
    """Hand inductor one instruction set, and yield its name; else it takes the best that this machine has.

    Its settings tell widths of vectors apart, and not VNNI or AMX from plain AVX-512: so its list is replaced.
    """
    from torch._inductor import cpu_vec_isa

    if instructions.vector_isa is None:
        yield str(cpu_vec_isa.pick_vec_isa())
        return
    isa = getattr(cpu_vec_isa, instructions.vector_isa)()
    module: Any = cpu_vec_isa
    known = module.valid_vec_isa_list
    module.valid_vec_isa_list = lambda: [isa] if isa.bit_width() else []
    try:
        yield str(isa)
    finally:
        module.valid_vec_isa_list = known


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Let inductor write below a folder, where the user names no other: it never deletes the code of a package."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    before = os.environ.get(_CACHE)
    if before not in (None, default_cache_dir()):  # torch writes its default there itself
        yield
        return
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        os.environ[_CACHE] = before or default_cache_dir()


def _check_isa(path: Path, name: str) -> None:
    """Compare what was asked of inductor with what it says it did."""
    metadata = read_metadata(path)
    if metadata.get("AOTI_CPU_ISA") != name.upper():
        raise OperatorError(
            f"torch {torch.__version__} compiled for {metadata.get('AOTI_CPU_ISA')} and was asked for {name.upper()}; unset "
            "ATEN_CPU_CAPABILITY, or build with --form eager"
        )
