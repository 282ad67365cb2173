from __future__ import annotations

import pytest

from ts_handlers.build.target import NATIVE, TARGETS, target_cpu
from ts_handlers.errors import OperatorError
from ts_handlers.machine.features import parse_cpuinfo, read_cpuinfo


def test_a_named_target() -> None:
    assert target_cpu("amx") is TARGETS["amx"]


def test_native_is_this_machine_by_its_own_name() -> None:
    zen_4 = parse_cpuinfo("processor: 0\nflags: avx2 avx512f avx512_vnni avx512_bf16\n")
    assert target_cpu(NATIVE, zen_4) is TARGETS["avx512-bf16"]
    assert target_cpu(NATIVE) is read_cpuinfo().target


def test_a_target_that_is_none() -> None:
    with pytest.raises(OperatorError, match="--target-cpu pentium: choose one of native, sse4, avx2"):
        target_cpu("pentium")
