from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.operate.traps.sites import Site, expect


@pytest.mark.parametrize(
    ("changes", "severity", "key", "words"),
    [
        ({"job_queue_sise": "5"}, "problem", "job_queue_sise", "write job_queue_size"),
        ({"Inference_Address": "http://0.0.0.0:1"}, "problem", "Inference_Address", "write inference_address"),
        ({"TS_NUMBER_OF_GPU": "1"}, "problem", "TS_NUMBER_OF_GPU", "write number_of_gpu"),
        ({"colour": "blue"}, "warning", "colour", "it is ignored"),
        ({"job_queue_size": "100 # enough"}, "problem", "job_queue_size", "write 100 and nothing behind it"),
        ({"job_queue_size": "many"}, "problem", "job_queue_size", "no whole number"),
        ({"job_queue_size": "3000000000"}, "problem", "job_queue_size", "no whole number"),
        ({"job_queue_size": "0"}, "problem", "job_queue_size", "less than 1"),
        ({"grpc_inference_max_connection_age_ms": "1h"}, "problem", "grpc_inference_max_connection_age_ms", "no whole"),
        ({"enable_model_api": "yes"}, "problem", "enable_model_api", "counts as false"),
        ({"enable_metrics_api": "true "}, "problem", "enable_metrics_api", "nothing behind it"),
        ({"token_expiration_min": "never"}, "problem", "token_expiration_min", "above 0"),
        ({"token_expiration_min": "-1"}, "problem", "token_expiration_min", "above 0"),
        ({"blacklist_env_vars": "("}, "problem", "blacklist_env_vars", "no regular expression"),
        ({"metrics_mode": "prom"}, "problem", "metrics_mode", "goes on with log"),
        ({"min_workers": "4"}, "warning", "min_workers", "set minWorkers for each model, in models="),
        ({"model_store": "$$STORE$$"}, "problem", "model_store", "STORE is not set"),
        ({"max_response_size": "-1"}, "problem", "max_response_size", "less than 1"),
    ],
)
def test_a_value(site: Site, changes: Mapping[str, str | None], severity: str, key: str, words: str) -> None:
    site.values.update(changes)
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("tail", "severity", "key", "words"),
    [
        ("job_queue_size=100\n", "warning", "job_queue_size", "only its last line counts"),
        ("allowed_urls=https://x\\.org/.*\n", "warning", "allowed_urls", "drops a single backslash"),
        ("allowed_urls=(?!)\\\nnumber_of_gpu=1\n", "warning", "allowed_urls", "the next line part of it"),
        ("vmargs: -Xmx512m\n", "warning", "vmargs", "`torchserve` itself reads this line"),
        ("vmargs=-Xmx512m \\\n -Dx=y\n", "warning", "vmargs", "`torchserve` itself reads this line"),
    ],
)
def test_a_line(site: Site, tail: str, severity: str, key: str, words: str) -> None:
    site.tail = tail
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("environ", "changes", "severity", "key", "words"),
    [
        ({"TS_CONFIG_FILE": "/x"}, {}, "warning", "TS_CONFIG_FILE", "not this one"),
        ({"OMP_NUM_THREADS": "8"}, {}, "warning", "OMP_NUM_THREADS", "are more than 2 CPUs; unset it"),
        (
            {"TS_JOB_QUEUE_SIZE": "1"},
            {"enable_envvars_config": "true"},
            "warning",
            "enable_envvars_config",
            "TS_JOB_QUEUE_SIZE in the environment",
        ),
        ({"TS_JOB_QUEUE_SIZE": "1"}, {"enable_envvars_config": "true"}, "warning", "job_queue_size", "never fill"),
        (
            {"TS_ALLOWED_URLS": ".*"},
            {"enable_envvars_config": "true", "use_env_allowed_urls": "true"},
            "warning",
            "allowed_urls",
            "from anywhere",
        ),
    ],
)
def test_the_environment(
    site: Site, environ: dict[str, str], changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.environ = environ
    site.values.update(changes)
    expect(site, severity, key, words)
