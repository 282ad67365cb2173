"""Each of TorchServe's traps once: a sound file, one thing changed, and what the check says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from tests.unit.operate.check.sites import IN_POD, LAUNCHER, MACHINE, YAML, Site, expect
from ts_handlers.machine import CpuBudget
from ts_handlers.operate.check.server import Place
from ts_handlers.operate.machine import Machine

ARGS = "cpu_launcher_args"
BY_ENVIRONMENT = {"enable_envvars_config": "true", "use_env_allowed_urls": "true"}


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"job_queue_sise": "5"}, "problem", "write job_queue_size"),
        ({"Inference_Address": "http://0.0.0.0:1"}, "problem", "write inference_address"),
        ({"TS_NUMBER_OF_GPU": "1"}, "problem", "write number_of_gpu"),
        ({"colour": "blue"}, "warning", "it is ignored"),
        ({"job_queue_size": "many"}, "problem", "no whole number"),
        ({"job_queue_size": "3000000000"}, "problem", "no whole number"),
        ({"job_queue_size": "0"}, "problem", "ends when it loads a model"),
        ({"grpc_inference_max_connection_age_ms": "1h"}, "problem", "no whole"),
        ({"enable_model_api": "yes"}, "problem", "counts as false"),
        ({"token_expiration_min": "never"}, "problem", "above 0"),
        ({"token_expiration_min": "-1"}, "problem", "above 0"),
        ({"blacklist_env_vars": "("}, "problem", "no regular expression"),
        ({"metrics_mode": "prom"}, "problem", "goes on with log"),
        ({"min_workers": "4"}, "warning", "set minWorkers for each model, in models="),
        ({"metrics_config": "$$FILE$$"}, "problem", "FILE is not set"),
        ({"max_response_size": "-1"}, "problem", "no answer is taken"),
        ({"blacklist_env_vars": ".*PATH"}, "warning", "keeps PATH, LD_LIBRARY_PATH"),
        ({"vmargs": "-XX:ActiveProcessorCount=2"}, "warning", "without -Xmx"),
        ({"vmargs": "-Xmx7g"}, "warning", "more than half of 8192"),
        ({"prefer_direct_buffer": "true"}, "warning", "outside the heap"),
        ({"max_request_size": "6"}, "warning", "it is in bytes"),
        ({"max_request_size": "1073741824"}, "warning", "fill the heap"),
        ({"number_of_gpu": None}, "hint", "every GPU"),
        ({"ipex_enable": "true"}, "hint", "stock base handler"),
        ({"number_of_netty_threads": None}, "hint", "which are 2 here"),
        ({"model_store": None}, "warning", "--model-store"),
        ({"model_store": "."}, "warning", "counts from the folder"),
        ({"model_store": "/nowhere/at/all"}, "problem", "there is no /nowhere/at/all"),
        ({"inference_address": "127.0.0.1:8080"}, "problem", "it is no address"),
        ({"inference_address": "http://127.0.0.1:65535"}, "problem", "1 to 65534"),
        ({"metrics_address": "http://0.0.0.0:8080"}, "problem", "as inference_address"),
        ({"management_address": "http://127.0.0.1:8080"}, "warning", "reaches the management API"),
        ({"grpc_management_port": "7070"}, "problem", "as grpc_inference_port"),
        ({"initial_worker_port": "65535"}, "problem", "choose a smaller one"),
        ({"initial_worker_port": "8079", "use_native_io": "false"}, "problem", "TCP ports"),
        ({"management_address": "http://0.0.0.0:8081"}, "warning", "a token is all that protects"),
        ({"grpc_management_address": "10.0.0.1"}, "warning", "whoever reaches it"),
        ({"disable_token_authorization": "true"}, "hint", "of this machine"),
        ({"allowed_urls": None}, "warning", "from anywhere"),
        ({"allowed_urls": None, "enable_model_api": "true"}, "problem", "lets clients register them"),
        ({"install_py_dep_per_model": "true"}, "warning", "runs pip"),
        ({"cors_allowed_origin": "*"}, "hint", "any web page"),
        (
            {"private_key_file": None, "inference_address": "https://127.0.0.1:8080"},
            "warning",
            "signs a certificate itself",
        ),
        ({"enable_grpc_ssl": "true"}, "problem", "does not start without them"),
        ({"load_models": None}, "warning", "unless torchserve --models names them, none is loaded"),
        ({"load_models": "mini-1.0.mar, x.mar"}, "problem", "blanks belong to the file's name"),
        ({"load_models": "mini-1.0.mar,x.mar"}, "problem", "it is not in"),
        ({"load_models": "mini-1.0.mar,http://x/y.mar"}, "hint", "was not checked"),
        ({"load_models": "mini-1.0.mar,mini-1.0.mar"}, "problem", "only the first one is loaded"),
        ({"models": "{"}, "problem", "TorchServe does not start"),
        ({"models": '{"mini": {"1.0": 3}}'}, "problem", "TorchServe does not start"),
        ({"models": '{"mini": 3}'}, "problem", "TorchServe does not start"),
        ({"models": '{"mini": {"1": {}}}'}, "problem", "write mini 1.0"),
        ({"models": '{"other": {"9": {}}}'}, "problem", "there are: mini 1.0"),
        ({"default_workers_per_model": None, "enable_model_api": "true"}, "hint", "registered later"),
        ({"job_queue_size": "4"}, "warning", "a batch can never fill"),
        ({"service_envelope": "kservev2"}, "problem", "first request of a batch only"),
        ({"service_envelope": "json"}, "warning", "before the handler sees them"),
        ({"metrics_mode": "log"}, "warning", "metrics go to the logs only"),
        ({"metrics_mode": None}, "warning", "metrics go to the logs only"),
        ({"metrics_config": None}, "warning", "they are dropped"),
        ({"metrics_config": "metrics.yaml"}, "problem", "there is no metrics.yaml"),
        ({"metrics_config": "/nowhere/metrics.yaml"}, "problem", "no worker starts"),
        ({"default_startup_timeout": "0"}, "problem", "no model is ever ready"),
        ({"number_of_netty_threads": "-1"}, "problem", "does not start"),
        ({"service_envelope": "kfserving"}, "problem", "has body, json, kserve, kservev2"),
        ({"service_envelope": "KServe"}, "problem", "no worker loads its model"),
        ({"decode_input_request": "True"}, "problem", "letter by letter"),
        ({"ipex_enable": "TRUE"}, "problem", "letter by letter"),
        ({"python": "/opt/python"}, "warning", "whatever this says"),
        ({"model_server_home": "/opt"}, "hint", "whatever this says"),
        ({"workflow_store": "/nowhere"}, "problem", "no workflow is found"),
        ({"metrics_address": "http://no-such-host.invalid:8082"}, "problem", "cannot bind it"),
        ({"grpc_inference_address": "203.0.113.7"}, "problem", "cannot bind it"),
        ({"keystore": "/gone", "inference_address": "https://127.0.0.1:8080"}, "problem", "not start"),
    ],
)
def test_a_value(site: Site, changes: dict[str, str | None], severity: str, words: str) -> None:
    """The finding is about the property that is named first."""
    site.values.update(changes)
    expect(site, severity, next(iter(changes)), words)


@pytest.mark.parametrize(
    ("environ", "changes", "severity", "key", "words"),
    [
        ({"TS_CONFIG_FILE": "/x"}, {}, "warning", "TS_CONFIG_FILE", "not this one"),
        ({"OMP_NUM_THREADS": "8"}, {}, "warning", "OMP_NUM_THREADS", "are more than 2 CPUs; unset it"),
        (
            {"TS_JOB_QUEUE_SIZE": "1"},
            BY_ENVIRONMENT,
            "warning",
            "enable_envvars_config",
            "TS_JOB_QUEUE_SIZE in the env",
        ),
        ({"TS_JOB_QUEUE_SIZE": "1"}, BY_ENVIRONMENT, "warning", "job_queue_size", "never fill"),
        ({"TS_ALLOWED_URLS": ".*"}, BY_ENVIRONMENT, "warning", "allowed_urls", "from anywhere"),
    ],
)
def test_the_environment(
    site: Site, environ: dict[str, str], changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.environ = environ
    site.values.update(changes)
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("machine", "changes", "severity", "key", "words"),
    [
        (IN_POD, {"vmargs": "-Xmx512m"}, "warning", "vmargs", "count the node's 64 CPUs instead of 2"),
        (replace(MACHINE, budget=CpuBudget((0,))), {}, "warning", "models", "2 workers: there are 1 CPUs"),
        (replace(MACHINE, gpus=0), {"number_of_gpu": "2"}, "warning", "number_of_gpu", "finds 0 here"),
        (IN_POD, LAUNCHER, "warning", "cpu_launcher_enable", "knows nothing of quotas"),
        (IN_POD, LAUNCHER | {ARGS: ""}, "problem", ARGS, "this container has CPUs 0-3"),
        (MACHINE, LAUNCHER | {ARGS: "--core_list=0,1  --ncores_per_instance=1"}, "problem", ARGS, "single blanks"),
        (replace(MACHINE, python=None), LAUNCHER, "problem", "cpu_launcher_enable", "no `python` on PATH"),
    ],
)
def test_the_machine(
    site: Site, machine: Machine, changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.machine = machine
    site.values.update(changes)
    expect(site, severity, key, words)


def test_a_launcher_that_binds(site: Site, write_mar: Callable[..., Path]) -> None:
    site.values[ARGS] = "--rank 1"
    expect(site, "hint", ARGS, "nobody reads it")
    site.values.update(LAUNCHER)
    expect(site, "hint", "cpu_launcher_enable", "ends and starts all")

    write_mar("other", "1.0", config=YAML)
    site.values["load_models"] = "mini-1.0.mar,other-1.0.mar"
    expect(site, "problem", "cpu_launcher_enable", "true, with 2 models")


def test_build_reports(site: Site) -> None:
    (site.store / "mini.build.json").write_text("{")
    expect(site, "warning", "build reports", "is not JSON")

    (site.store / "mini.build.json").write_text(json.dumps({"name": "mini", "version": "1.0", "rss_mb": 3500}))
    expect(site, "problem", "models", "the kernel would end one")


@pytest.mark.parametrize(
    ("is_open", "can_register", "role", "severity", "words"),
    [
        (True, False, "management", "warning", "without any token"),
        (True, True, "management", "problem", "can load code"),
        (False, True, "management", "warning", "a token is all that protects"),
        (True, False, "inference", "warning", "any client that reaches"),
    ],
)
def test_who_reaches_it(site: Site, *, is_open: bool, can_register: bool, role: str, severity: str, words: str) -> None:
    port = 8080 if role == "inference" else 8081
    site.values |= {f"{role}_address": f"http://0.0.0.0:{port}", "disable_token_authorization": str(is_open).lower()}
    site.values["enable_model_api"] = str(can_register).lower()
    expect(site, severity, "disable_token_authorization" if role == "inference" else "management_address", words)


def test_a_private_key_is_tried_with_its_certificate(site: Site, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    for name, leaf in (("a", authority), ("b", other)):
        certificate = leaf.issue_cert("localhost", key_type=trustme.KeyType.RSA)
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.crt"))
    files = {"private_key_file": str(tmp_path / "a.key"), "certificate_file": str(tmp_path / "a.crt")}
    site.values |= {"inference_address": "https://127.0.0.1:8080", **files}
    assert site.findings() == []

    site.values["certificate_file"] = str(tmp_path / "b.crt")
    expect(site, "problem", "private_key_file", "cannot use it with its certificate")
    site.values["private_key_file"] = str(tmp_path / "gone.key")
    expect(site, "problem", "private_key_file", "does not start")


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        ("a: [", "problem", "no YAML"),
        ("[]", "problem", "it holds list"),
        ("model_metrics: {}\n", "problem", "no model_metrics"),
        ("model_metrics: {counter: [{name: x}]}\n", "warning", "drops metrics it does not name"),
    ],
)
def test_a_metrics_file(site: Site, text: str, severity: str, words: str) -> None:
    (site.store / "metrics.yaml").write_text(text)
    expect(site, severity, "metrics_config", words)


def test_dimensions_in_another_order(site: Site) -> None:
    file = site.store / "metrics.yaml"
    file.write_text(file.read_text().replace("[Code, ModelName, Level]", "[ModelName, Level, Code]"))
    expect(site, "warning", "metrics_config", "ts_handlers_rejected_rows_total with dimensions")


@pytest.mark.parametrize("table", ["", "handler: {max_length: 50}\n", "handler: {profile: true}\n"])
def test_metrics_and_batches_of_others_are_theirs(site: Site, write_mar: Callable[..., Path], table: str) -> None:
    write_mar("mini", "1.0", config=f"{YAML.partition('handler')[0]}{table}")
    (site.store / "metrics.yaml").write_text("model_metrics: {counter: [{name: x}]}\n")
    assert site.findings() == []

    site.values |= {"metrics_config": None, "service_envelope": "json"}
    site.models(batchSize=...)
    assert [(one.severity, one.seen) for one in site.findings()] == [("hint", "no batchSize")]


class TestPlaces:
    """Paths that are right where the server runs."""

    def test_a_store_that_is_elsewhere_is_one_finding(self, site: Site) -> None:
        for folder in ("/srv/", "gone/"):
            site.values |= {"model_store": f"{folder}models", "metrics_config": f"{folder}metrics.yaml"}
            (found,) = site.findings()
            assert (found.severity, found.key) == ("problem", "model_store")
            assert "--root DIR" in found.remedy

    def test_root_maps_every_path(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "image").mkdir()
        site.store.rename(tmp_path / "image" / "models")
        site.values |= {"model_store": "/models", "metrics_config": "/models/metrics.yaml"}
        site.values["inference_address"] = "http://name-in-the-cluster:8080"
        site.place = Place(root=tmp_path / "image", is_here=False)
        assert site.findings() == []

        site.values["load_models"] = "gone.mar"
        expect(site, "problem", "load_models", "gone.mar: it is not in")

    def test_a_model_store_of_the_command_line(self, site: Site) -> None:
        site.place = Place(model_store=site.store)
        for named in ("/srv/models", "$$STORE$$", None):
            site.values["model_store"] = named
            assert site.findings() == []

    def test_relative_paths_count_from_the_working_folder(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        site.values |= {"model_store": "store", "metrics_config": "store/metrics.yaml"}
        monkeypatch.chdir(site.store.parent)
        assert {(one.severity, one.key) for one in site.findings()} == {
            ("warning", "model_store"),
            ("warning", "metrics_config"),
        }
        (site.store / "store").mkdir()
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        expect(site, "problem", "model_store", "start the server in")
