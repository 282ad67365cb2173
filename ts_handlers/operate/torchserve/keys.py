"""The keys TorchServe 0.12 reads from config.properties, and how it reads each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "int", "long", "float", "port", "address", "pattern", "json", "text"]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key.

    Attributes:
        kind: How TorchServe reads its value.
        variable: The environment variable that goes before it with enable_envvars_config; empty where there is none.
    """

    kind: Kind
    variable: str = ""


_FROM_ENVIRONMENT: dict[str, Kind] = {
    "debug": "bool",
    "inference_address": "address",
    "management_address": "address",
    "metrics_address": "address",
    "load_models": "text",
    "blacklist_env_vars": "pattern",
    "default_workers_per_model": "int",
    "default_response_timeout": "int",
    "default_startup_timeout": "int",
    "unregister_model_timeout": "int",
    "number_of_netty_threads": "int",
    "netty_client_threads": "int",
    "job_queue_size": "int",
    "number_of_gpu": "int",
    "metrics_config": "text",
    "metrics_mode": "text",
    "model_metrics_auto_detect": "bool",
    "disable_system_metrics": "bool",
    "ipex_enable": "bool",
    "cpu_launcher_enable": "bool",
    "cpu_launcher_args": "text",
    "ipex_gpu_enable": "bool",
    "async_logging": "bool",
    "cors_allowed_origin": "text",
    "cors_allowed_methods": "text",
    "cors_allowed_headers": "text",
    "decode_input_request": "bool",
    "keystore": "text",
    "keystore_pass": "text",
    "keystore_type": "text",
    "certificate_file": "text",
    "private_key_file": "text",
    "max_request_size": "int",
    "max_response_size": "int",
    "limit_max_image_pixels": "bool",
    "default_service_handler": "text",
    "service_envelope": "text",
    "model_server_home": "text",
    "model_store": "text",
    "prefer_direct_buffer": "bool",
    "allowed_urls": "text",
    "install_py_dep_per_model": "bool",
    "enable_metrics_api": "bool",
    "grpc_inference_address": "text",
    "grpc_management_address": "text",
    "grpc_inference_port": "port",
    "grpc_management_port": "port",
    "grpc_inference_max_connection_age_ms": "long",
    "grpc_management_max_connection_age_ms": "long",
    "grpc_inference_max_connection_age_grace_ms": "long",
    "grpc_management_max_connection_age_grace_ms": "long",
    "enable_grpc_ssl": "bool",
    "initial_worker_port": "port",
    "initial_distribution_port": "port",
    "workflow_store": "text",
    "cpp_log_config": "text",
    "ts_open_inference_protocol": "text",
    "token_expiration_min": "float",
    "ts_header_key_sequence_id": "text",
    "ts_header_key_sequence_start": "text",
    "ts_header_key_sequence_end": "text",
    "disable_token_authorization": "bool",
    "enable_model_api": "bool",
}

_FROM_FILE_ONLY: dict[str, Kind] = {
    "use_native_io": "bool",
    "io_ratio": "int",
    "metric_time_interval": "int",
    "enable_envvars_config": "bool",
    "model_snapshot": "json",
    "models": "json",
    "version": "text",
    "system_metrics_cmd": "text",
    "use_env_allowed_urls": "bool",
    "python": "text",
}

LAUNCHER_KEYS = ("vmargs", "plugins_path", "model_store")
"""What `torchserve`, the Python command, reads from the file itself, line by line: `key=value`, no escapes."""

_VARIABLES = {"token_expiration_min": "TS_TOKEN_EXPIRATION_TIME_MIN"}
"""Where the variable is not TS_ and the key; the keys that begin with ts_ have no second one."""


def _variable(key: str) -> str:
    return _VARIABLES.get(key, f"TS_{key.removeprefix('ts_').upper()}")


KNOWN: dict[str, KnownKey] = {
    **{key: KnownKey(kind, _variable(key)) for key, kind in _FROM_ENVIRONMENT.items()},
    **{key: KnownKey(kind) for key, kind in _FROM_FILE_ONLY.items()},
    "vmargs": KnownKey("text"),
    "plugins_path": KnownKey("text"),
}
