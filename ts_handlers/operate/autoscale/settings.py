"""The autoscaler's configuration file -> frozen dataclasses; strict, with the full path in every error."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.config.reading import load_yaml
from ts_handlers.config.settings import from_mapping, setting
from ts_handlers.errors import ConfigError
from ts_handlers.operate.autoscale.decide import Policy

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True)
class TorchServeSettings:
    """`torchserve`: where the server is.

    Attributes:
        management_url: Base URL of the management API.
        metrics_url: URL of the Prometheus metrics.
        key_file: The server's key_file.json, whose management token is renewed when it expires; null for no token.
        timeout_s: How long one answer may take.
    """

    management_url: str = "http://127.0.0.1:8081"
    metrics_url: str = "http://127.0.0.1:8082/metrics"
    key_file: str | None = None
    timeout_s: float = setting(10.0, minimum=0.1)


@dataclass(frozen=True, slots=True)
class ModelSettings(Policy):
    """`models.NAME`: the policy of one model, and what one worker of it takes.

    Attributes:
        cpus_per_worker: CPUs; its threads are floor(cpus).
        memory_per_worker_mb: MiB; null for the largest that TorchServe has measured of this model's workers.
        load_time_s: Seconds until a new worker serves, until TorchServe has measured it.
    """

    cpus_per_worker: float = setting(1.0, minimum=0.01)
    memory_per_worker_mb: int | None = setting(None, minimum=1)
    load_time_s: float = setting(30.0, minimum=0.1)


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """`budget`: what all workers together may take.

    Attributes:
        max_cpus: Most CPUs; null for those of this machine or container. Needed with `kubernetes`: what the pod may grow to.
        frontend_cpus: CPUs that are kept for TorchServe's frontend.
        memory_mb: Most MiB; null for what is available here, with `kubernetes` for the container's memory limit.
        frontend_memory_mb: MiB of `memory_mb` that are kept for the frontend.
    """

    max_cpus: float | None = setting(None, minimum=0.01)
    frontend_cpus: float = setting(0.0, minimum=0)
    memory_mb: int | None = setting(None, minimum=1)
    frontend_memory_mb: int = setting(700, minimum=0)


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """`kubernetes`: the pod that is resized in place.

    Attributes:
        api_url: The API server; null for KUBERNETES_SERVICE_HOST and _PORT of the environment.
        service_account: Folder with token, ca.crt and namespace; the token is read anew for every request.
        namespace: The pod's namespace; null for the service account's.
        pod: The pod's name; null for POD_NAME or HOSTNAME of the environment.
        container: The container that TorchServe runs in.
        timeout_s: How long one answer of the API server may take.
    """

    api_url: str | None = None
    service_account: str = SERVICE_ACCOUNT
    namespace: str | None = None
    pod: str | None = None
    container: str = "torchserve"
    timeout_s: float = setting(5.0, minimum=0.1)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """`metrics`: the autoscaler's own, for Prometheus.

    Attributes:
        host: Address to listen on.
        port: TCP port; null for no metrics.
    """

    host: str = "127.0.0.1"
    port: int | None = setting(8083, minimum=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file.

    Attributes:
        interval_s: Seconds between two looks.
        window_s: Seconds that rates and means are taken over.
        hold_timeout_s: Longest search for the moment in which a worker can be removed.
        models: The models whose workers are scaled, by name; of a short budget the first is served first, look by look.
    """

    models: Mapping[str, ModelSettings]
    torchserve: TorchServeSettings = TorchServeSettings()
    budget: BudgetSettings = BudgetSettings()
    kubernetes: KubernetesSettings | None = None
    metrics: MetricsSettings = MetricsSettings()
    interval_s: float = setting(2.0, minimum=0.05)
    window_s: float = setting(10.0, minimum=0.1)
    hold_timeout_s: float = setting(20.0, minimum=0.1)


def read_settings(path: Path) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong: names the setting.
    """
    try:
        content = load_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return parse_settings(content, path.name)


def parse_settings(content: Any, name: str) -> Settings:
    """Build the settings from a parsed file, naming the file in every error.

    Raises:
        ConfigError: Something is wrong: names the setting.
    """
    if not isinstance(content, Mapping) or not content.get("models"):
        raise ConfigError(
            f"{name}: models is missing; name at least one, as in models: {{sentiment: {{max_workers: 4}}}}"
        )
    settings = from_mapping(Settings, content, f"{name}:")
    for model, policy in settings.models.items():
        if policy.max_workers < policy.min_workers:
            raise ConfigError(
                f"{name}: models.{model}.max_workers is {policy.max_workers}; it must be min_workers "
                f"({policy.min_workers}) or more"
            )
    if (settings.metrics.port or 0) > 65535:
        raise ConfigError(f"{name}: metrics.port is {settings.metrics.port}; it must be 1 to 65535")
    if settings.kubernetes is not None and settings.budget.max_cpus is None:
        raise ConfigError(f"{name}: budget.max_cpus is missing; with kubernetes, say how far the pod may grow")
    for key, url in (
        ("torchserve.management_url", settings.torchserve.management_url),
        ("torchserve.metrics_url", settings.torchserve.metrics_url),
        ("kubernetes.api_url", (settings.kubernetes or KubernetesSettings()).api_url),
    ):
        if url is not None and not _is_address(url):
            raise ConfigError(f"{name}: {key} is {url!r}; it must be an address as http://127.0.0.1:8081")
    return settings


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of its port, or of brackets
        return False
