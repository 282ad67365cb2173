"""Which instructions compiled code may use."""

from __future__ import annotations

import pytest

from ts_handlers.build.compile.instructions import choose_instructions
from ts_handlers.build.target import TARGETS
from ts_handlers.errors import OperatorError

V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
GENOA = frozenset(V4 | {"avx512_vnni", "avx512_bf16", "avx_vnni"})
SAPPHIRE_RAPIDS = frozenset(GENOA | {"amx_tile", "amx_int8", "amx_bf16"})
ALDER_LAKE = frozenset(V3 | {"avx_vnni"})


@pytest.mark.parametrize(
    ("target", "here", "isa", "march"),
    [
        ("amx", SAPPHIRE_RAPIDS, "VecAMX", "x86-64-v4"),
        ("avx512-bf16", SAPPHIRE_RAPIDS, "VecAVX512VNNI", "x86-64-v4"),
        ("avx512", SAPPHIRE_RAPIDS, "VecAVX512", "x86-64-v4"),
        ("avx2", SAPPHIRE_RAPIDS, "VecAVX2", "x86-64-v3"),
        ("sse4", SAPPHIRE_RAPIDS, "InvalidVecISA", "x86-64-v2"),
        ("amx", GENOA, "VecAVX512VNNI", "x86-64-v4"),
        ("vnni", ALDER_LAKE, "VecAVX2", "x86-64-v3"),
    ],
)
def test_the_best_that_both_cpus_have(target: str, here: frozenset[str], isa: str, march: str) -> None:
    found = choose_instructions(TARGETS[target], "x86_64", here)
    assert (found.vector_isa, found.march) == (isa, march)
    assert set(found.flags) <= here


def test_code_is_never_made_for_another_architecture() -> None:
    with pytest.raises(OperatorError, match="--target-cpu neon: code is compiled for .* the building machine, x86_64"):
        choose_instructions(TARGETS["neon"], "x86_64", GENOA)
    with pytest.raises(OperatorError, match="--target-cpu avx2: .* aarch64"):
        choose_instructions(TARGETS["avx2"], "aarch64", frozenset({"asimd"}))


def test_on_arm_the_code_is_for_this_machine() -> None:
    found = choose_instructions(TARGETS["neon-dotprod"], "aarch64", frozenset({"asimddp", "asimd"}))
    assert (found.vector_isa, found.march, found.flags) == (None, None, ("asimd", "asimddp"))


def test_a_cpu_that_is_too_old() -> None:
    with pytest.raises(OperatorError, match="this CPU lacks cx16, .*; build with --form eager"):
        choose_instructions(TARGETS["sse4"], "x86_64", frozenset({"ssse3"}))
