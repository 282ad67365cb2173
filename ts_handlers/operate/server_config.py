"""Read a config.properties back: where TorchServe will listen, and the models and workers it will start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.config import DEFAULT_BODY_BYTES
from ts_handlers.errors import ConfigError
from ts_handlers.operate import properties
from ts_handlers.operate.archives import MAX_JAVA_INT
from ts_handlers.operate.configure.workers import MAX_WORKERS
from ts_handlers.reading import parse_json

_ADDRESS = re.compile(r"(https?)://([^:/]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE)
_DEFAULT_STARTUP_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address the server binds.

    Attributes:
        name: What listens there.
        scheme: http, https or grpc.
        host: The address as configured.
        port: The port.
    """

    name: str
    scheme: str
    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        """Where a client on this machine finds it."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "*"} else self.host  # noqa: S104 (it is compared, not bound)

    @property
    def url(self) -> str:
        """The address as a client on this machine writes it."""
        return f"{self.scheme}://{self.reachable_host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """One model of `models=`.

    Attributes:
        name: Its name.
        version: Its version.
        min_workers: Workers TorchServe starts.
        startup_timeout_s: Seconds each may take to load.
    """

    name: str
    version: str
    min_workers: int
    startup_timeout_s: int


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What `serve` needs to know of a config.properties.

    Attributes:
        path: The file.
        models: The models it starts.
        inference: HTTP address of the inference API.
        management: HTTP address of the management API.
        metrics: HTTP address of the metrics; None where they are off.
        grpc: gRPC addresses.
        max_response_bytes: Largest answer the frontend takes from a worker.
        initial_worker_port: Number of the first worker's socket.
        is_unix_workers: Whether workers listen on unix sockets (else on TCP ports of 127.0.0.1).
        is_token_required: Whether clients must send a token.
        vmargs: Arguments of the JVM.
        plugins_path: More jars for the frontend.
    """

    path: Path
    models: tuple[ConfiguredModel, ...]
    inference: Address
    management: Address
    metrics: Address | None
    grpc: tuple[Address, ...]
    max_response_bytes: int
    initial_worker_port: int
    is_unix_workers: bool
    is_token_required: bool
    vmargs: tuple[str, ...]
    plugins_path: str | None

    @property
    def num_workers(self) -> int:
        """Workers of all models together."""
        return sum(model.min_workers for model in self.models)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every TCP address the server binds."""
        return tuple(
            address for address in (self.inference, self.management, self.metrics, *self.grpc) if address is not None
        )

    @property
    def worker_ports(self) -> range:
        """Numbers of the workers' sockets."""
        return range(self.initial_worker_port, self.initial_worker_port + self.num_workers)


def read_server_config(path: Path) -> ServerConfig:
    """Read a config.properties.

    Raises:
        ConfigError: It cannot be read, has no usable `models=`, or binds an address this cannot check.
    """
    values = properties.parse(properties.read_text(path))
    is_metrics = values.get("enable_metrics_api", "true").lower() == "true"
    config = ServerConfig(
        path=path,
        models=_models(path, values),
        inference=_address(path, values, "inference", 8080),
        management=_address(path, values, "management", 8081),
        metrics=_address(path, values, "metrics", 8082) if is_metrics else None,
        grpc=(_grpc(path, values, "inference", 7070), _grpc(path, values, "management", 7071)),
        max_response_bytes=_body_bytes(values.get("max_response_size")),
        initial_worker_port=_port(path, values, "initial_worker_port", 9000),
        is_unix_workers=values.get("use_native_io", "true").lower() == "true",
        is_token_required=values.get("disable_token_authorization", "false").lower() != "true",
        vmargs=tuple(values.get("vmargs", "").split()),
        plugins_path=values.get("plugins_path"),
    )
    if config.worker_ports.stop > 65536:
        raise ConfigError(
            f"{path}: initial_worker_port is {config.initial_worker_port}, which leaves no room for {config.num_workers} "
            "workers; choose a smaller one"
        )
    return config


def _models(path: Path, values: Mapping[str, str]) -> tuple[ConfiguredModel, ...]:
    remedy = "write it with: ts-handlers configure"
    try:
        models = parse_json(values["models"])
        found = tuple(
            _model(name, version, settings)
            for name, versions in models.items()
            for version, settings in versions.items()
        )
    except KeyError as error:
        raise ConfigError(
            f"{path} has no models= with minWorkers for each ({error.args[0]} is missing); {remedy}"
        ) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: models= cannot be read ({error}); {remedy}") from error
    if not found:
        raise ConfigError(f"{path}: models= is empty; {remedy}")
    count = sum(model.min_workers for model in found)
    if count > MAX_WORKERS or min(model.min_workers for model in found) < 0:
        raise ConfigError(f"{path}: models= asks for {count} workers; 0 to {MAX_WORKERS} can be started; {remedy}")
    return found


def _model(name: str, version: str, settings: Mapping[str, Any]) -> ConfiguredModel:
    return ConfiguredModel(
        name=name,
        version=version,
        min_workers=int(settings["minWorkers"]),
        startup_timeout_s=min(MAX_JAVA_INT, int(settings.get("startupTimeout", _DEFAULT_STARTUP_TIMEOUT_S))),
    )


def _address(path: Path, values: Mapping[str, str], name: str, default: int) -> Address:
    key = f"{name}_address"
    text = values.get(key, f"http://127.0.0.1:{default}")
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3] or 0) < 65536:
        raise ConfigError(f"{path}: {key} is {text!r}; write it as http://ADDRESS:PORT, with a port of 1 to 65535")
    return Address(name, match[1].lower(), match[2], int(match[3]))


def _grpc(path: Path, values: Mapping[str, str], name: str, default: int) -> Address:
    host = values.get(f"grpc_{name}_address", "127.0.0.1")
    return Address(f"gRPC {name}", "grpc", host, _port(path, values, f"grpc_{name}_port", default))


def _port(path: Path, values: Mapping[str, str], key: str, default: int) -> int:
    text = values.get(key, str(default)).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) < 65536:
        raise ConfigError(f"{path}: {key} is {text!r}; write a port, 1 to 65535")
    return int(text)


def _body_bytes(text: str | None) -> int:
    """Return a size as TorchServe reads it: one that is no 32-bit number is as if it were not there."""
    try:
        size = int(text or DEFAULT_BODY_BYTES)
    except ValueError:
        return DEFAULT_BODY_BYTES
    return size if 0 < size <= MAX_JAVA_INT else DEFAULT_BODY_BYTES
