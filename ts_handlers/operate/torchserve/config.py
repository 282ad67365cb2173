"""A config.properties as it takes effect: the file, the environment over it, and the model store it serves from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.config.sections import DEFAULT_BODY_BYTES
from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.address import GRPC_PORTS, HTTP_PORTS, LARGEST_PORT, Address, parse_http
from ts_handlers.operate.torchserve.archives import Store, read_store
from ts_handlers.operate.torchserve.keys import KNOWN

CONFIG_NAME = "config.properties"
METRICS_NAME = "metrics.yaml"
CONFIG_VARIABLE = "TS_CONFIG_FILE"
"""The environment variable that names a file which TorchServe reads in place of the one it is given."""

_VARIABLE = re.compile(r"\$\$([^$]+[^$])\$\$")
"""How TorchServe finds a variable in a value; a name has at least two characters."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One config.properties, with all that decides what TorchServe makes of it.

    Attributes:
        path: The file.
        lines: Its properties as they are written.
        values: What TorchServe goes by: the last value of each key, variables expanded, environment over it.
        environ: The environment TorchServe is started in.
        store: The model store.
        num_cpus: CPUs of the whole machine: what Java counts where nothing tells it otherwise.
    """

    path: Path
    lines: tuple[properties.Line, ...]
    values: Mapping[str, str]
    environ: Mapping[str, str]
    store: Store
    num_cpus: int

    def is_true(self, key: str, *, default: bool = False) -> bool:
        """Read a switch as Java's parseBoolean does: everything but "true" is false."""
        return self.values.get(key, str(default)).lower() == "true"

    def number(self, key: str, default: int) -> int:
        """Read a whole number; the default where TorchServe could not read it."""
        value = java_int(self.values.get(key, ""))
        return default if value is None else value

    def address(self, role: str) -> Address | None:
        """Return the HTTP address of an API; None where TorchServe does not start with it."""
        return parse_http(role, self.values.get(f"{role}_address", f"http://127.0.0.1:{HTTP_PORTS[role][0]}"))

    @property
    def inference(self) -> Address:
        """HTTP address of the inference API."""
        return self._tcp("inference")

    @property
    def management(self) -> Address:
        """HTTP address of the management API."""
        return self._tcp("management")

    @property
    def metrics(self) -> Address | None:
        """HTTP address of the metrics; None where they are off."""
        return self._tcp("metrics") if self.is_true("enable_metrics_api", default=True) else None

    @property
    def grpc(self) -> tuple[Address, ...]:
        """The gRPC addresses."""
        return tuple(
            Address(
                f"grpc_{name}",
                "grpc",
                self.values.get(f"grpc_{name}_address", "127.0.0.1"),
                self.port(f"grpc_{name}_port", default),
            )
            for name, default in GRPC_PORTS.items()
        )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every TCP address the server binds.

        Raises:
            ConfigError: One cannot be bound, or is none of TCP.
        """
        metrics = self.metrics
        return (self.inference, self.management, *([metrics] if metrics else []), *self.grpc)

    @property
    def is_token_required(self) -> bool:
        """Whether clients must send a token."""
        return not self.is_true("disable_token_authorization")

    @property
    def is_unix_workers(self) -> bool:
        """Whether workers listen on unix sockets, else on TCP ports of 127.0.0.1."""
        return self.is_true("use_native_io", default=True)

    @property
    def vmargs(self) -> tuple[str, ...]:
        """Arguments of the JVM."""
        return tuple(self.values.get("vmargs", "").split())

    @property
    def max_response_bytes(self) -> int:
        """Largest answer the frontend takes from a worker."""
        size = self.number("max_response_size", DEFAULT_BODY_BYTES)
        return size if size > 0 else DEFAULT_BODY_BYTES

    def check_variables(self) -> None:
        """Check that every variable can be expanded.

        Raises:
            ConfigError: One is not set, so that TorchServe would not start.
        """
        for line in self.lines:
            for name in unset_variables(line.value, self.environ):
                raise ConfigError(
                    f"{self.path}: {name} is not set, which the value of {line.key} needs; set it, or write the value"
                )

    def port(self, key: str, default: int) -> int:
        """Return a port.

        Raises:
            ConfigError: It is none.
        """
        port = self.number(key, default if key not in self.values else 0)
        if not 0 < port < 65536:
            raise ConfigError(f"{self.path}: {key} is {self.values[key]!r}; write a port, 1 to 65535")
        return port

    def _tcp(self, role: str) -> Address:
        address = self.address(role)
        if address is None or not 0 < address.port <= LARGEST_PORT:
            raise ConfigError(
                f"{self.path}: {role}_address is {self.values[f'{role}_address']!r}; write it as http://ADDRESS:PORT, "
                f"with a port of 1 to {LARGEST_PORT}"
            )
        return address


def read_config(
    path: Path, environ: Mapping[str, str] = os.environ, *, model_store: Path | None = None
) -> ServerConfig:
    """Read a config.properties and look at its model store.

    Args:
        path: The file. Where TS_CONFIG_FILE is set, TorchServe reads that file instead, but for `ts-handlers serve`.
        environ: The environment TorchServe is started in.
        model_store: The folder given to TorchServe with --model-store, which goes before the file's.

    Raises:
        ConfigError: The file cannot be read, or is no .properties text.
    """
    lines = properties.parse_lines(properties.read_text(path))
    written = {line.key: line.value for line in lines}
    values = effective(written, environ, {} if model_store is None else {"model_store": str(model_store)})
    store = read_store(path.parent / values["model_store"] if "model_store" in values else None)
    return ServerConfig(path, lines, values, environ, store, os.cpu_count() or 1)


def effective(
    written: Mapping[str, str], environ: Mapping[str, str], options: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Expand `$$VAR$$`, let options of the command line go before that and, with enable_envvars_config, TS_ variables.

    A variable that is not set stays as it is written; TorchServe does not start then.
    """
    found = {key: _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), value) for key, value in written.items()}
    found |= options or {}
    if found.get("enable_envvars_config", "false").lower() == "true":
        found |= overrides(found, environ)
    return found


def overrides(values: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the TS_ variables of the environment set, by key; whether the file lets them is not asked."""
    is_url_open = values.get("use_env_allowed_urls", "false").lower() == "true"
    return {
        key: environ[known.variable]
        for key, known in KNOWN.items()
        if known.variable in environ and (key != "allowed_urls" or is_url_open)
    }


def unset_variables(value: str, environ: Mapping[str, str]) -> list[str]:
    """Return the variables a value wants expanded that are not set."""
    return [name for name in _VARIABLE.findall(value) if name not in environ]


def java_int(text: str) -> int | None:
    """Read text as Java's Integer.parseInt does; None where it throws."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        return None
    return int(text) if -(2**31) <= int(text) < 2**31 else None
