from __future__ import annotations

import pytest

from ts_handlers.machine.features import TARGETS, parse_cpuinfo, read_cpuinfo

X86 = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu sse4_1 {}\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "flags", "name"),
    [
        (X86, "", "sse4"),
        (X86, "avx2 fma", "avx2"),
        (X86, "avx2 avx512f avx512bw", "avx512"),
        (X86, "avx2 avx_vnni", "avx2-vnni"),
        (X86, "avx2 avx512f avx512_vnni", "vnni"),
        (X86, "avx2 avx512f avx512_vnni avx512_bf16", "avx512-bf16"),
        (X86, "avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16", "amx"),
        (X86, "avx2 avx512f avx512_vnni amx_tile amx_int8", "vnni"),
        (ARM, "", "neon"),
        (ARM, "asimddp", "neon-dotprod"),
        (ARM, "asimddp i8mm bf16 sve", "neon-bf16"),
    ],
)
def test_a_cpu_is_the_best_target_it_has_everything_of(text: str, flags: str, name: str) -> None:
    assert parse_cpuinfo(text.format(flags)).target == TARGETS[name]


@pytest.mark.parametrize("text", [X86.format(""), ARM.format(""), ""])
def test_an_old_or_unknown_cpu_has_a_target_too(text: str) -> None:
    assert not parse_cpuinfo(text).target.has_bf16


def test_integers_of_each_target() -> None:
    saturating = {name for name, target in TARGETS.items() if not target.has_vnni}
    assert saturating == {"sse4", "avx2", "avx512"}
    assert {name for name, target in TARGETS.items() if target.is_arm} == {"neon", "neon-dotprod", "neon-bf16"}


def test_this_machine_has_a_target() -> None:
    info = read_cpuinfo()
    assert info.target.has_bf16 == info.has_bf16
    assert info.num_logical > 0
