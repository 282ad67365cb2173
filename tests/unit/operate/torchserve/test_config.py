from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.config_texts import MODELS
from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import ConfiguredModel, served_models, worker_numbers


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
    config = read_config(write_config(MODELS + "inference_address=https://0.0.0.0\n"))

    assert [address.port for address in config.addresses] == [443, 8081, 8082, 7070, 7071]
    assert config.inference.url == "https://127.0.0.1:443"
    assert (worker_numbers(config), served_models(config)[0].startup_timeout_s) == (range(9000, 9002), 120)


def test_metrics_can_be_off(write_config: Callable[[str], Path]) -> None:
    config = read_config(write_config(MODELS + "enable_metrics_api=false\n"))

    assert config.metrics is None
    assert len(config.addresses) == 4


@pytest.mark.parametrize(
    ("host", "url", "is_loopback"),
    [
        ("0.0.0.0", "grpc://127.0.0.1:7070", False),
        ("::", "grpc://127.0.0.1:7070", False),
        ("0:0:0:0:0:0:0:0", "grpc://127.0.0.1:7070", False),
        ("::1", "grpc://[::1]:7070", True),
        ("[::1]", "grpc://[::1]:7070", True),
        ("127.1.2.3", "grpc://127.1.2.3:7070", True),
        ("LocalHost", "grpc://LocalHost:7070", True),
        ("10.0.0.7", "grpc://10.0.0.7:7070", False),
        ("fe80::7", "grpc://[fe80::7]:7070", False),
    ],
)
def test_an_address_has_many_forms(
    write_config: Callable[[str], Path], host: str, url: str, *, is_loopback: bool
) -> None:
    address = read_config(write_config(f"grpc_inference_address={host}\n")).grpc[0]

    assert (address.url, address.is_loopback) == (url, is_loopback)


def test_the_environment_goes_before_the_file_where_the_file_says_so(write_config: Callable[[str], Path]) -> None:
    environ = {"TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:9999", "TS_DISABLE_TOKEN_AUTHORIZATION": "true"}
    text = MODELS + "management_address=http://127.0.0.1:1234\n"

    config = read_config(write_config(text), environ)
    assert (config.management.port, config.is_token_required) == (1234, True)
    config = read_config(write_config(text + "enable_envvars_config=true\n"), environ)
    assert (config.management.port, config.is_token_required) == (9999, False)


def test_variables_are_expanded(write_config: Callable[[str], Path]) -> None:
    text = MODELS + "management_address=http://127.0.0.1:$$PORT$$\n"

    assert read_config(write_config(text), {"PORT": "1234"}).management.port == 1234
    with pytest.raises(ConfigError, match=r"PORT is not set, which the value of management_address needs"):
        read_config(write_config(text), {}).check_variables()


@pytest.mark.parametrize(
    ("yaml", "workers", "startup_timeout_s"),
    [
        ("minWorkers: 3\nmaxWorkers: 3\nstartupTimeout: 30\n", 3, 30),
        ("minWorkers: 3\nmaxWorkers: 2\n", 2, 120),
        ("minWorkers: 3\n", 2, 120),
        (None, 2, 60),
    ],
)
def test_an_archive_s_own_numbers_go_before_those_of_the_file(
    write_mar: Callable[..., Path],
    write_config: Callable[[str], Path],
    yaml: str | None,
    workers: int,
    startup_timeout_s: int,
) -> None:
    """`serve` waited for ever for the workers of the file where the archive asks for fewer."""
    store = write_mar("a", config=yaml).parent
    models = 'models={"a": {"1.0": {"minWorkers": 2, "startupTimeout": 60}}}\n'
    config = read_config(write_config(f"{models}load_models=all\n"), model_store=store)

    assert served_models(config) == (ConfiguredModel("a", "1.0", workers, startup_timeout_s),)


def test_a_model_needs_no_entry_where_its_workers_are_said_elsewhere(
    write_mar: Callable[..., Path], write_config: Callable[[str], Path]
) -> None:
    store = write_mar("a").parent
    write_mar("b", config="minWorkers: 1\nmaxWorkers: 1\n")
    text = "load_models=other=a-1.0.mar,b-1.0.mar\nmodel_store=store\n"
    config = read_config(write_config(f"{text}default_workers_per_model=2\n"))

    assert store == config.store.folder
    assert [(model.label, model.workers) for model in served_models(config)] == [("other 1.0", 2), ("b 1.0", 1)]
    with pytest.raises(ConfigError, match=r"no minWorkers above 0 for other 1\.0"):
        served_models(read_config(write_config(text)))
