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


_FROM_ENVIRONMENT: dict[Kind, str] = {
    "bool": """
        debug model_metrics_auto_detect disable_system_metrics ipex_enable cpu_launcher_enable ipex_gpu_enable
        async_logging decode_input_request limit_max_image_pixels prefer_direct_buffer install_py_dep_per_model
        enable_metrics_api enable_grpc_ssl disable_token_authorization enable_model_api
    """,
    "address": "inference_address management_address metrics_address",
    "text": """
        load_models metrics_config metrics_mode cpu_launcher_args cors_allowed_origin cors_allowed_methods
        cors_allowed_headers keystore keystore_pass keystore_type certificate_file private_key_file
        default_service_handler service_envelope model_server_home model_store allowed_urls
        grpc_inference_address grpc_management_address workflow_store cpp_log_config ts_open_inference_protocol
        ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end
    """,
    "pattern": "blacklist_env_vars",
    "int": """
        default_workers_per_model default_response_timeout default_startup_timeout unregister_model_timeout
        number_of_netty_threads netty_client_threads job_queue_size number_of_gpu max_request_size
        max_response_size
    """,
    "port": "grpc_inference_port grpc_management_port initial_worker_port initial_distribution_port",
    "long": """
        grpc_inference_max_connection_age_ms grpc_management_max_connection_age_ms
        grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_grace_ms
    """,
    "float": "token_expiration_min",
}
"""The keys that a variable may set, too, by kind."""

_FROM_FILE_ONLY: dict[Kind, str] = {
    "bool": "use_native_io enable_envvars_config use_env_allowed_urls",
    "int": "io_ratio metric_time_interval",
    "json": "model_snapshot models",
    "text": "version system_metrics_cmd python vmargs plugins_path",
}

LAUNCHER_KEYS = ("vmargs", "plugins_path", "model_store")
"""What `torchserve`, the Python command, reads from the file itself, line by line: `key=value`, no escapes."""

_VARIABLES = {"token_expiration_min": "TS_TOKEN_EXPIRATION_TIME_MIN"}
"""Where the variable is not TS_ and the key; the keys that begin with ts_ have no second one."""


def _variable(key: str) -> str:
    return _VARIABLES.get(key, f"TS_{key.removeprefix('ts_').upper()}")


KNOWN: dict[str, KnownKey] = {
    **{key: KnownKey(kind, _variable(key)) for kind, keys in _FROM_ENVIRONMENT.items() for key in keys.split()},
    **{key: KnownKey(kind) for kind, keys in _FROM_FILE_ONLY.items() for key in keys.split()},
}
