from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.config_texts import MODELS
from ts_handlers.errors import ConfigError
from ts_handlers.operate.server_config import read_server_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no models="),
        ("models=[1]\n", "models= cannot be read"),
        ("models={\n", "models= cannot be read"),
        ("models={}\n", "models= is empty"),
        ('models={"a": {"1.0": {}}}\n', "minWorkers is missing"),
        ('models={"a": {"1.0": {"minWorkers": "x"}}}\n', "models= cannot be read"),
        (MODELS + "inference_address=unix:/x\n", "inference_address is 'unix:/x'"),
        (MODELS + "grpc_inference_port=high\n", "grpc_inference_port is 'high'"),
        (MODELS + "initial_worker_port=0\n", "initial_worker_port is '0'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    write_config: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_server_config(write_config(text))


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_server_config(tmp_path)


def test_torchserve_s_defaults_are_known(write_config: Callable[[str], Path]) -> None:
    config = read_server_config(write_config(MODELS + "inference_address=https://0.0.0.0:8443\n"))

    assert [address.port for address in config.addresses] == [8443, 8081, 8082, 7070, 7071]
    assert config.inference.url == "https://127.0.0.1:8443"
    assert (config.worker_ports, config.models[0].startup_timeout_s) == (range(9000, 9002), 120)


def test_metrics_can_be_off(write_config: Callable[[str], Path]) -> None:
    config = read_server_config(write_config(MODELS + "enable_metrics_api=false\n"))

    assert config.metrics is None
    assert len(config.addresses) == 4
