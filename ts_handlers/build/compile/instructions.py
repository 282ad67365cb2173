"""Which instructions compiled code may use: those of the serving CPU that the building CPU has as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.cpu.features import TargetCpu
from ts_handlers.errors import OperatorError

_V2 = ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
"""Flags of /proc/cpuinfo behind the levels x86-64-v2, v3 and v4 of the x86-64 ABI, which compilers take as -march."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """What the compiler is told.

    Attributes:
        vector_isa: Class of `torch._inductor.cpu_vec_isa` that vector code is written with; None: inductor's own choice.
        march: The compiler's -march; None: this machine's.
        flags: Flags of /proc/cpuinfo that the code needs.
    """

    vector_isa: str | None
    march: str | None
    flags: tuple[str, ...]


_X86: tuple[Instructions, ...] = (
    Instructions("VecAMX", "x86-64-v4", (*_V4, "avx512_vnni", "amx_bf16", "amx_int8", "amx_tile")),
    Instructions("VecAVX512VNNI", "x86-64-v4", (*_V4, "avx512_vnni")),
    Instructions("VecAVX512", "x86-64-v4", _V4),
    Instructions("VecAVX2", "x86-64-v3", _V3),
    Instructions("InvalidVecISA", "x86-64-v2", _V2),
)
"""The best first."""

_BEST: Mapping[str, int] = {"amx": 0, "avx512-bf16": 1, "vnni": 1, "avx512": 2, "avx2-vnni": 3, "avx2": 3, "sse4": 4}
"""Target -> the first of `_X86` that its CPUs have."""


def choose_instructions(target: TargetCpu, machine: str, flags: frozenset[str]) -> Instructions:
    """Return the best instructions that both the target and this machine have.

    This machine compiles and tries the code, so it is to have them too.

    Args:
        target: The CPU that will serve.
        machine: Architecture of this one, as `platform.machine()` has it.
        flags: Its flags of /proc/cpuinfo.

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
        return Instructions(None, None, tuple(sorted(flags)))
    for instructions in _X86[_BEST[target.name] :]:
        if set(instructions.flags) <= flags:
            return instructions
    missing = ", ".join(flag for flag in _V2 if flag not in flags)
    raise OperatorError(f"this CPU lacks {missing}, which compiled code needs at least; build with --form eager")
