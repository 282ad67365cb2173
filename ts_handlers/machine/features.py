"""What /proc/cpuinfo says: how many CPUs, and which instruction sets. Text in, a dataclass out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        is_arm: Whether it is an ARM CPU, not x86.
    """

    model_name: str
    num_logical: int
    num_cores: int
    flags: tuple[str, ...]
    is_virtual: bool
    is_arm: bool = False

    @property
    def threads_per_core(self) -> int:
        """2 where two logical CPUs share a core (SMT, hyper-threading)."""
        return self.num_logical // self.num_cores if self.num_cores else 1

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """The names of its flags."""
        return tuple(INSTRUCTION_SETS[flag] for flag in self.flags)

    @property
    def has_vnni(self) -> bool:
        """Whether one instruction multiplies and adds INT8 in 32 bits; AVX2 without it adds in 16 bits and saturates."""
        return bool(_VNNI & set(self.flags)) or "amx_int8" in self.flags

    @property
    def has_bf16(self) -> bool:
        """Whether the CPU itself multiplies bf16."""
        return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(self.flags))

    @property
    def target(self) -> TargetCpu:
        """The target of `--target-cpu` that says what this CPU can multiply."""
        has = set(self.flags)
        return next(
            TARGETS[name] for name, needs in _TARGET_FLAGS if TARGETS[name].is_arm == self.is_arm and needs <= has
        )

    @property
    def int8_advice(self) -> str:
        """What INT8 gains here."""
        if "amx_int8" in self.flags:
            return "fast: AMX multiplies INT8 tiles, the largest gain over fp32"
        if self.has_vnni:
            return "fast: one instruction multiplies and adds INT8 (VNNI or its like)"
        if {"avx512f", "avx2"} & set(self.flags):
            return "faster than fp32, but without VNNI sums saturate at 16 bits: check the accuracy after building"
        return "not faster than fp32: no AVX2 and no INT8 dot product"

    @property
    def bf16_advice(self) -> str:
        """What bf16 gains here."""
        if "amx_bf16" in self.flags:
            return "fast: AMX multiplies bf16 tiles"
        if self.has_bf16:
            return "fast: the CPU multiplies bf16"
        return "slower than fp32: the CPU only emulates it"


@dataclass(frozen=True, slots=True)
class TargetCpu:
    """What a serving CPU can multiply.

    Attributes:
        name: As `--target-cpu` has it.
        has_vnni: Whether INT8 products are summed in 32 bits. Without it (SSE4, AVX2 and AVX-512 without VNNI) two
            products of 8 bits are summed in 16, which saturates, so that weights have to do with 7 bits.
        has_bf16: Whether it multiplies bf16 itself.
        is_arm: Whether it is an ARM CPU, which multiplies signed by signed integers; x86 wants unsigned by signed.
    """

    name: str
    has_vnni: bool
    has_bf16: bool
    is_arm: bool = False


TARGETS: Mapping[str, TargetCpu] = {
    target.name: target
    for target in (
        TargetCpu("sse4", has_vnni=False, has_bf16=False),
        TargetCpu("avx2", has_vnni=False, has_bf16=False),
        TargetCpu("avx512", has_vnni=False, has_bf16=False),
        TargetCpu("avx2-vnni", has_vnni=True, has_bf16=False),
        TargetCpu("vnni", has_vnni=True, has_bf16=False),
        TargetCpu("avx512-bf16", has_vnni=True, has_bf16=True),
        TargetCpu("amx", has_vnni=True, has_bf16=True),
        TargetCpu("neon", has_vnni=True, has_bf16=False, is_arm=True),
        TargetCpu("neon-dotprod", has_vnni=True, has_bf16=False, is_arm=True),
        TargetCpu("neon-bf16", has_vnni=True, has_bf16=True, is_arm=True),
    )
}
"""CPUs by the newest of their instruction sets that matters here."""

_TARGET_FLAGS: tuple[tuple[str, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_int8", "amx_bf16"})),
    ("avx512-bf16", frozenset({"avx512_vnni", "avx512_bf16"})),
    ("vnni", frozenset({"avx512_vnni"})),
    ("avx512", frozenset({"avx512f"})),
    ("avx2-vnni", frozenset({"avx_vnni"})),
    ("avx2", frozenset({"avx2"})),
    ("sse4", frozenset()),
    ("neon-bf16", frozenset({"asimddp", "bf16"})),
    ("neon-dotprod", frozenset({"asimddp"})),
    ("neon", frozenset()),
)
"""Flags that make a target, the best of each architecture first; what has none of them is the last."""


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
        is_arm="Features" in first,
    )


def read_cpuinfo() -> CpuInfo:
    """Read this machine's."""
    return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
