from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.config_texts import MODELS
from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import served_models, worker_numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asks for 0 workers"),
        ("models=[1]\n", "models= cannot be read"),
        ("models={\n", "models= cannot be read"),
        ("models={}\n", "asks for 0 workers"),
        ('models={"a": {"1.0": {}}}\n', "no minWorkers above 0 for a 1.0"),
        ('models={"a": {"1.0": {"minWorkers": "x"}}}\n', "no minWorkers above 0 for a 1.0"),
        ('models={"a": {"1.0": {"minWorkers": 1025}}}\n', "asks for 1025 workers"),
        (MODELS + "initial_worker_port=0\n", "initial_worker_port is '0'"),
        (MODELS + "initial_worker_port=65534\n", "leaves no room for 2 workers"),
    ],
)
def test_workers_that_cannot_be_started_are_refused(
    write_config: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        worker_numbers(read_config(write_config(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inference_address=unix:/x\n", "inference_address is 'unix:/x'"),
        ("inference_address=http://[::1]:80\n", "inference_address is 'http://\\[::1\\]:80'"),
        ("metrics_address=http://a:65535\n", "with a port of 1 to 65534"),
        ("grpc_inference_port=high\n", "grpc_inference_port is 'high'"),
    ],
)
def test_addresses_that_cannot_be_bound_are_refused(
    write_config: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = read_config(write_config(text)).addresses


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path)


def test_torchserve_s_defaults_are_known(write_config: Callable[[str], Path]) -> None:
    config = read_config(write_config(MODELS + "inference_address=https://0.0.0.0:8443\n"))

    assert [address.port for address in config.addresses] == [8443, 8081, 8082, 7070, 7071]
    assert config.inference.url == "https://127.0.0.1:8443"
    assert (worker_numbers(config), served_models(config)[0].startup_timeout_s) == (range(9000, 9002), 120)


def test_metrics_can_be_off(write_config: Callable[[str], Path]) -> None:
    config = read_config(write_config(MODELS + "enable_metrics_api=false\n"))

    assert config.metrics is None
    assert len(config.addresses) == 4
