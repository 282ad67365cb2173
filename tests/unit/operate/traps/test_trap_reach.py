from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.operate.traps.sites import Site, expect


@pytest.mark.parametrize(
    ("changes", "severity", "key", "words"),
    [
        ({"inference_address": "127.0.0.1:8080"}, "problem", "inference_address", "it is no address"),
        ({"inference_address": "http://127.0.0.1:65535"}, "problem", "inference_address", "1 to 65534"),
        ({"metrics_address": "http://0.0.0.0:8080"}, "problem", "metrics_address", "as inference_address"),
        (
            {"management_address": "http://127.0.0.1:8080"},
            "warning",
            "management_address",
            "reaches the management API",
        ),
        ({"grpc_management_port": "7070"}, "problem", "grpc_management_port", "as grpc_inference_port"),
        ({"initial_worker_port": "65535"}, "problem", "initial_worker_port", "choose a smaller one"),
        ({"initial_worker_port": "8079", "use_native_io": "false"}, "problem", "initial_worker_port", "TCP ports"),
        (
            {"management_address": "http://0.0.0.0:8081"},
            "warning",
            "management_address",
            "a token is all that protects",
        ),
        ({"grpc_management_address": "10.0.0.1"}, "warning", "grpc_management_address", "whoever reaches it"),
        ({"disable_token_authorization": "true"}, "hint", "disable_token_authorization", "of this machine"),
        ({"allowed_urls": None}, "warning", "allowed_urls", "from anywhere"),
        ({"allowed_urls": None, "enable_model_api": "true"}, "problem", "allowed_urls", "lets clients register them"),
        ({"install_py_dep_per_model": "true"}, "warning", "install_py_dep_per_model", "runs pip"),
        ({"cors_allowed_origin": "*"}, "hint", "cors_allowed_origin", "any web page"),
        ({"inference_address": "https://127.0.0.1:8080"}, "warning", "inference_address", "signs a certificate itself"),
        ({"enable_grpc_ssl": "true"}, "problem", "enable_grpc_ssl", "does not start without them"),
    ],
)
def test_a_value(site: Site, changes: Mapping[str, str | None], severity: str, key: str, words: str) -> None:
    site.values.update(changes)
    expect(site, severity, key, words)


def test_open_management_with_the_model_api_and_no_token(site: Site) -> None:
    site.values |= {"management_address": "http://0.0.0.0:8081", "disable_token_authorization": "true"}
    expect(site, "warning", "management_address", "without any token")

    site.values["enable_model_api"] = "true"
    expect(site, "problem", "management_address", "can load code")


def test_open_inference_without_tokens(site: Site) -> None:
    site.values |= {"inference_address": "http://0.0.0.0:8080", "disable_token_authorization": "true"}
    expect(site, "warning", "disable_token_authorization", "any client that reaches")
