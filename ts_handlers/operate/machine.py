"""What a Linux machine says about itself: CPUs, instruction sets, control groups. Files in, dataclasses out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ts_handlers.cgroup import mounted_versions

INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimddp": "NEON dot product",
    "i8mm": "NEON INT8 matrix product",
    "bf16": "NEON BF16",
    "sve": "SVE",
}
"""Flags of /proc/cpuinfo that decide how fast a model runs, and what people call them."""

_VNNI = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
"""Flags of CPUs that multiply and add INT8 in one instruction."""


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What /proc/cpuinfo says.

    Attributes:
        model_name: The CPU's name; empty where the kernel gives none (ARM).
        num_logical: Logical CPUs of the machine, not of this container.
        num_cores: Physical cores.
        flags: The flags of INSTRUCTION_SETS that it has.
        is_virtual: Whether a hypervisor is below.
    """

    model_name: str
    num_logical: int
    num_cores: int
    flags: tuple[str, ...]
    is_virtual: bool

    @property
    def threads_per_core(self) -> int:
        """2 where two logical CPUs share a core (SMT, hyper-threading)."""
        return self.num_logical // self.num_cores if self.num_cores else 1

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """The names of its flags."""
        return tuple(INSTRUCTION_SETS[flag] for flag in self.flags)

    @property
    def int8_advice(self) -> str:
        """What INT8 gains here."""
        if "amx_int8" in self.flags:
            return "fast: AMX multiplies INT8 tiles, the largest gain over fp32"
        if _VNNI & set(self.flags):
            return "fast: one instruction multiplies and adds INT8 (VNNI or its like)"
        if {"avx512f", "avx2"} & set(self.flags):
            return "faster than fp32, but without VNNI sums saturate at 16 bits: check the accuracy after building"
        return "not faster than fp32: no AVX2 and no INT8 dot product"

    @property
    def bf16_advice(self) -> str:
        """What bf16 gains here."""
        if "amx_bf16" in self.flags:
            return "fast: AMX multiplies bf16 tiles"
        if {"avx512_bf16", "bf16"} & set(self.flags):
            return "fast: the CPU multiplies bf16"
        return "slower than fp32: the CPU only emulates it"


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read the text of /proc/cpuinfo, of x86 or ARM."""
    blocks = [_fields(block) for block in text.split("\n\n")]
    processors = [block for block in blocks if "processor" in block]
    first = processors[0] if processors else {}
    has = set((first.get("flags") or first.get("Features") or "").split())
    cores = {
        (block["physical id"], block["core id"])
        for block in processors
        if "physical id" in block and "core id" in block
    }
    return CpuInfo(
        model_name=first.get("model name", ""),
        num_logical=len(processors),
        num_cores=len(cores) or len(processors),
        flags=tuple(flag for flag in INSTRUCTION_SETS if flag in has),
        is_virtual="hypervisor" in has,
    )


def cgroup_version(root: Path = Path("/")) -> Literal["v1", "v2", "v1 and v2", "none"]:
    """Say which control groups are mounted."""
    versions = mounted_versions(root)
    if versions == {1, 2}:
        return "v1 and v2"
    return "v2" if 2 in versions else "v1" if versions else "none"


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
