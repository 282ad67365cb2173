from __future__ import annotations

import logging

import pytest

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError
from ts_handlers.machine.features import CpuInfo, parse_cpuinfo
from ts_handlers.runtime.target import check_target


def cpu(flags: str) -> CpuInfo:
    return parse_cpuinfo(f"processor: 0\nflags: {flags}\n")


AVX2 = cpu("avx2 fma")
VNNI = cpu("avx2 avx512f avx512_vnni")
AMX = cpu("avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16")


def said(config: RuntimeConfig, info: CpuInfo, caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "ts_handlers"):
        check_target(config, info)
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("target", ["vnni", "avx512-bf16", "amx"])
@pytest.mark.parametrize("info", [AVX2, cpu("avx2 avx512f"), cpu("")])
def test_8_bit_weights_on_a_cpu_that_saturates(target: str, info: CpuInfo, caplog: pytest.LogCaptureFixture) -> None:
    [(level, message)] = said(RuntimeConfig(precision="int8", target_cpu=target), info, caplog)
    assert level == logging.WARNING
    assert f"made for {target}, in 8 bits" in message
    assert f"build it again with --target-cpu {info.target.name}" in message


def test_7_bit_weights_on_a_cpu_that_can_do_more(caplog: pytest.LogCaptureFixture) -> None:
    [(level, message)] = said(RuntimeConfig(precision="int8", target_cpu="avx2"), VNNI, caplog)
    assert level == logging.INFO
    assert "nearer to fp32 if it is built again with --target-cpu vnni" in message


def test_bf16_on_a_cpu_that_emulates_it(caplog: pytest.LogCaptureFixture) -> None:
    [(level, message)] = said(RuntimeConfig(precision="bf16", target_cpu="amx"), VNNI, caplog)
    assert level == logging.WARNING
    assert "(vnni) only emulates bf16" in message


@pytest.mark.parametrize(
    ("config", "info"),
    [
        (RuntimeConfig(precision="int8"), AVX2),
        (RuntimeConfig(precision="fp32", target_cpu="amx"), AVX2),
        (RuntimeConfig(precision="int8", target_cpu="avx2"), AVX2),
        (RuntimeConfig(precision="int8", target_cpu="avx512"), AVX2),
        (RuntimeConfig(precision="int8", target_cpu="vnni"), AMX),
        (RuntimeConfig(precision="bf16", target_cpu="avx512-bf16"), AMX),
        (RuntimeConfig(precision="bf16", target_cpu="avx2"), AVX2),
    ],
)
def test_nothing_is_said_where_it_fits(config: RuntimeConfig, info: CpuInfo, caplog: pytest.LogCaptureFixture) -> None:
    assert said(config, info, caplog) == []


def test_a_target_that_is_none() -> None:
    with pytest.raises(ConfigError, match="handler.runtime.target_cpu is 'pentium'; choose one of sse4, avx2"):
        check_target(RuntimeConfig(precision="int8", target_cpu="pentium"), AVX2)
