"""Each of TorchServe's traps once: a sound file, one thing changed, and what the check says of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.cli import main
from ts_handlers.cpu import CpuBudget
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate import properties
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.contents import read_contents
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.known_keys import KNOWN
from ts_handlers.operate.traps.subject import Machine, gather, gather_text, this_machine

YAML = "responseTimeout: 120\nstartupTimeout: 300\nhandler:\n  task: text-classification\n"
MACHINE = Machine(CpuBudget((0, 1)), num_node_cpus=2, memory_mb=8192, python="python")
IN_POD = replace(MACHINE, budget=CpuBudget((0, 1, 2, 3), 2.0), num_node_cpus=64)
LAUNCHER = {"cpu_launcher_enable": "true", "cpu_launcher_args": "--core-list 0,1 --ncores-per-instance 1"}


@dataclass
class Site:
    """A configured store, and what a test changes of it.

    Attributes:
        store: The folder.
        values: The properties configure wrote; None for a value removes the line.
        tail: More lines, as they are.
        environ: The environment.
        machine: The machine that serves.
    """

    store: Path
    values: dict[str, str | None]
    tail: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    machine: Machine = MACHINE

    def findings(self) -> list[Finding]:
        lines = [properties.Entry(key, value) for key, value in self.values.items() if value is not None]
        text = properties.render(lines) + self.tail
        return find_traps(gather_text(self.store / "config.properties", text, self.environ, self.machine))

    def models(self, **changes: Any) -> None:
        """Change the entry of the one model; ... removes a key."""
        models = json.loads(str(self.values["models"]))
        entry = models["mini"]["1.0"] | changes
        models["mini"]["1.0"] = {key: value for key, value in entry.items() if value is not ...}
        self.values["models"] = json.dumps(models)


@pytest.fixture
def site(write_mar: Callable[..., Path]) -> Site:
    store = write_mar("mini", "1.0", config=YAML).parent
    assert main(["configure", str(store), "--cpus", "2", "--memory-mb", "8192"]) == 0
    text = (store / "config.properties").read_text()
    return Site(store, dict(properties.parse(text)))


def test_what_configure_writes_has_no_finding_at_all(site: Site) -> None:
    assert site.findings() == []


def expect(site: Site, severity: str, key: str, words: str) -> None:
    found = site.findings()
    meant = [one for one in found if one.key == key and words in one.describe()]
    assert [one.severity for one in meant] == [severity], [one.describe() for one in found]
    assert meant[0].remedy


VALUES: list[tuple[Mapping[str, str | None], str, str, str]] = [
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
    ({"blacklist_env_vars": ".*PATH"}, "warning", "blacklist_env_vars", "keeps PATH, LD_LIBRARY_PATH"),
    ({"metrics_mode": "prom"}, "problem", "metrics_mode", "goes on with log"),
    ({"model_snapshot": "{}"}, "problem", "model_snapshot", "beside load_models and models"),
    (
        {"model_snapshot": "{}", "models": None, "load_models": None},
        "warning",
        "model_snapshot",
        "they are not checked",
    ),
    ({"min_workers": "4"}, "warning", "min_workers", "set minWorkers for each model, in models="),
    ({"model_store": "$$STORE$$"}, "problem", "model_store", "STORE is not set"),
    ({"load_models": None}, "warning", "load_models", "unless torchserve --models names them, none is loaded"),
    ({"load_models": "mini-1.0.mar, x.mar"}, "problem", "load_models", "blanks belong to the file's name"),
    ({"load_models": "mini-1.0.mar,x.mar"}, "problem", "load_models", "it is not in"),
    ({"load_models": "mini-1.0.mar,http://x/y.mar"}, "hint", "load_models", "was not checked"),
    ({"load_models": "mini-1.0.mar,mini-1.0.mar"}, "problem", "load_models", "only the first one is loaded"),
    ({"load_models": "renamed=mini-1.0.mar"}, "problem", "models", "there are: renamed 1.0"),
    ({"models": "{"}, "problem", "models", "TorchServe does not start"),
    ({"models": "[]"}, "problem", "models", "TorchServe does not start"),
    ({"models": '{"mini": {"1.0": 3}}'}, "problem", "models", "TorchServe does not start"),
    ({"models": '{"mini": 3}'}, "problem", "models", "TorchServe does not start"),
    ({"models": '{"mini": {"1": {}}}'}, "problem", "models", "write mini 1.0"),
    ({"models": '{"other": {"9": {}}}'}, "problem", "models", "there are: mini 1.0"),
    ({"default_workers_per_model": None}, "hint", "default_workers_per_model", "registered later"),
    ({"job_queue_size": "4"}, "warning", "job_queue_size", "a batch can never fill"),
    ({"service_envelope": "kservev2"}, "problem", "service_envelope", "first request of a batch only"),
    ({"service_envelope": "json"}, "warning", "service_envelope", "before the handler sees them"),
    ({"inference_address": "127.0.0.1:8080"}, "problem", "inference_address", "it is no address"),
    ({"inference_address": "http://127.0.0.1:65535"}, "problem", "inference_address", "1 to 65534"),
    ({"metrics_address": "http://0.0.0.0:8080"}, "problem", "metrics_address", "as inference_address"),
    ({"management_address": "http://127.0.0.1:8080"}, "warning", "management_address", "reaches the management API"),
    ({"grpc_management_port": "7070"}, "problem", "grpc_management_port", "as grpc_inference_port"),
    ({"initial_worker_port": "65535"}, "problem", "initial_worker_port", "choose a smaller one"),
    ({"initial_worker_port": "8079", "use_native_io": "false"}, "problem", "initial_worker_port", "TCP ports"),
    ({"management_address": "http://0.0.0.0:8081"}, "warning", "management_address", "a token is all that protects"),
    ({"grpc_management_address": "10.0.0.1"}, "warning", "grpc_management_address", "whoever reaches it"),
    ({"disable_token_authorization": "true"}, "hint", "disable_token_authorization", "of this machine"),
    ({"allowed_urls": None}, "warning", "allowed_urls", "from anywhere"),
    ({"allowed_urls": None, "enable_model_api": "true"}, "problem", "allowed_urls", "lets clients register them"),
    ({"install_py_dep_per_model": "true"}, "warning", "install_py_dep_per_model", "runs pip"),
    ({"cors_allowed_origin": "*"}, "hint", "cors_allowed_origin", "any web page"),
    ({"inference_address": "https://127.0.0.1:8080"}, "warning", "inference_address", "signs a certificate itself"),
    ({"enable_grpc_ssl": "true"}, "problem", "enable_grpc_ssl", "does not start without them"),
    ({"vmargs": "-XX:ActiveProcessorCount=2"}, "warning", "vmargs", "without -Xmx"),
    ({"vmargs": "-Xmx7g"}, "warning", "vmargs", "more than half of 8192"),
    ({"prefer_direct_buffer": "true"}, "warning", "prefer_direct_buffer", "outside the heap"),
    ({"max_request_size": "6"}, "warning", "max_request_size", "it is in bytes"),
    ({"max_request_size": "1073741824"}, "warning", "max_request_size", "fill the heap"),
    ({"max_response_size": "-1"}, "problem", "max_response_size", "less than 1"),
    ({"number_of_gpu": None}, "hint", "number_of_gpu", "every GPU"),
    ({"ipex_enable": "true"}, "hint", "ipex_enable", "stock base handler"),
    ({"number_of_netty_threads": None}, "hint", "number_of_netty_threads", "here 4"),
    ({"model_store": None}, "warning", "model_store", "--model-store"),
    ({"model_store": "."}, "warning", "model_store", "counts from the folder"),
    ({"model_store": "/nowhere/at/all"}, "problem", "model_store", "no such folder"),
    ({"metrics_mode": "log"}, "warning", "metrics_mode", "metrics go to the logs only"),
    ({"metrics_mode": None}, "warning", "metrics_mode", "metrics go to the logs only"),
    ({"metrics_config": None}, "warning", "metrics_config", "they are dropped"),
    ({"metrics_config": "metrics.yaml"}, "warning", "metrics_config", "counts from the folder"),
    ({"metrics_config": "/nowhere/metrics.yaml"}, "problem", "metrics_config", "no worker starts"),
    ({"cpu_launcher_args": "--rank 1"}, "hint", "cpu_launcher_args", "nobody reads it"),
    (LAUNCHER | {"cpu_launcher_args": ""}, "hint", "cpu_launcher_args", "no --core-list"),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0,1"},
        "problem",
        "cpu_launcher_args",
        "--ncores-per-instance with it",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0,1  --ncores-per-instance 1"},
        "problem",
        "cpu_launcher_args",
        "single blanks",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core_list=0,1 --ncores_per_instance=1 --ninstances 2"},
        "problem",
        "cpu_launcher_args",
        "adds it for each worker itself",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0,1 --ncores-per-instance 1 --fast"},
        "problem",
        "cpu_launcher_args",
        "no option of torch.backends.xeon.run_cpu",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0,9 --ncores-per-instance 1"},
        "problem",
        "cpu_launcher_args",
        "may use 0-1",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0-1 --ncores-per-instance 1"},
        "problem",
        "cpu_launcher_args",
        "numbers and commas only",
    ),
    (
        LAUNCHER | {"cpu_launcher_args": "--core-list 0,1 --ncores-per-instance 2"},
        "problem",
        "cpu_launcher_args",
        "the last workers get none",
    ),
]


@pytest.mark.parametrize(("changes", "severity", "key", "words"), VALUES)
def test_a_value(site: Site, changes: Mapping[str, str | None], severity: str, key: str, words: str) -> None:
    site.values.update(changes)
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"maxBatchDelay": 0}, "problem", "TorchServe makes 100 ms of it"),
        ({"batchSize": 0}, "problem", "the default instead"),
        ({"batchSize": "many"}, "problem", "it is no number"),
        ({"batchSize": float("inf")}, "problem", "the default instead"),
        ({"minWorkers": True}, "problem", "it is no number"),
        ({"minworkers": 2}, "problem", "write minWorkers"),
        ({"colour": 2}, "warning", "remove it"),
        ({"maxWorkers": 1}, "warning", "after the first change of workers"),
        ({"maxWorkers": 8}, "hint", "never starts more"),
        ({"maxBatchDelay": 500}, "warning", "a lone request waits"),
        ({"batchSize": ...}, "warning", "no batchSize"),
        ({"minWorkers": 2000, "maxWorkers": 2000}, "problem", "no machine runs so many"),
        ({"responseTimeout": 60}, "warning", "goes before it: it says 120"),
    ],
)
def test_an_entry_of_models(site: Site, changes: Mapping[str, Any], severity: str, words: str) -> None:
    site.models(**changes)
    expect(site, severity, "models: mini 1.0", words)


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


@pytest.mark.parametrize(
    ("environ", "changes"),
    [
        ({"TS_JOB_QUEUE_SIZE": "1"}, {}),
        ({"TS_JOB_QUEUE_SIZE": "100"}, {"enable_envvars_config": "true"}),
        ({"TS_ALLOWED_URLS": ".*"}, {"enable_envvars_config": "true"}),
        ({"SIZE": "100"}, {"job_queue_size": "$$SIZE$$"}),
        ({}, {"load_models": "ALL"}),
        ({}, {"allowed_urls": "(?<name>[", "job_queue_size": "200"}),
        ({}, {"metrics_address": "unix:/tmp/x.sock"}),
        ({}, {"enable_metrics_api": "false", "metrics_address": "http://127.0.0.1:8080"}),
        ({}, {"inference_address": "https://127.0.0.1:8443", "keystore": "x"}),
    ],
)
def test_what_is_no_trap_is_left_alone(site: Site, environ: dict[str, str], changes: dict[str, str]) -> None:
    site.environ = environ
    site.values.update(changes)

    assert site.findings() == []


@pytest.mark.parametrize(
    ("machine", "changes", "severity", "key", "words"),
    [
        (IN_POD, {"vmargs": "-Xmx512m"}, "warning", "vmargs", "count the node's 64 CPUs instead of 2"),
        (IN_POD, LAUNCHER, "warning", "cpu_launcher_enable", "knows nothing of quotas"),
        (IN_POD, LAUNCHER | {"cpu_launcher_args": ""}, "problem", "cpu_launcher_args", "this container has CPUs 0-3"),
        (replace(MACHINE, python=None), LAUNCHER, "problem", "cpu_launcher_enable", "no `python` on PATH"),
        (replace(MACHINE, budget=CpuBudget((0,))), {}, "warning", "models", "2 workers: there are 1 CPUs"),
    ],
)
def test_the_machine(
    site: Site, machine: Machine, changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.machine = machine
    site.values.update(changes)
    expect(site, severity, key, words)


def test_workers_that_nobody_counts_are_one_for_each_cpu_of_the_node(site: Site) -> None:
    site.machine = IN_POD
    site.values.update({"vmargs": "-Xmx512m", "default_workers_per_model": None, "models": None})

    expect(site, "problem", "models: mini 1.0", "here 64")


def test_launched_workers_of_two_models_meet(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("other", "1.0", config=YAML)
    site.values.update(LAUNCHER | {"load_models": "mini-1.0.mar,other-1.0.mar"})

    expect(site, "problem", "cpu_launcher_enable", "true, with 2 models")


@pytest.mark.parametrize(
    ("config", "severity", "key", "words"),
    [
        (YAML + "batchSize: 32\n", "warning", "models: mini 1.0", "batchSize 8: the archive's model-config.yaml"),
        (YAML + "minWorkers: 1\nmaxWorkers: 1\n", "warning", "models: mini 1.0", "minWorkers 2: the archive's"),
        (YAML + "minWorkers: 2\n", "warning", "mini-1.0.mar", "ignored unless maxWorkers is as large"),
        (YAML + "batch_size: 8\n", "warning", "mini-1.0.mar", "write batchSize"),
        (YAML + "batchSize: '8'\n", "warning", "mini-1.0.mar", "whole numbers only"),
        (YAML + "jobQueueSize: 2\n", "warning", "job_queue_size", "2, with batches of 8"),
        ("handler: {}\n", "warning", "models: mini 1.0", "startupTimeout 300: the archive's"),
        (YAML.replace("  task", "  cpu: {threads: 4}\n  task"), "warning", "mini-1.0.mar", "more than 2 CPUs"),
        ("", "problem", "mini-1.0.mar", "the server starts without it"),
    ],
)
def test_a_yaml(site: Site, write_mar: Callable[..., Path], config: str, severity: str, key: str, words: str) -> None:
    write_mar("mini", "1.0", config=config)
    expect(site, severity, key, words)


def test_the_120_seconds_nobody_wrote(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0", config="handler: {}\n")

    assert any("it sets none, and TorchServe takes 120" in found.why for found in site.findings())


def test_an_archive_without_yaml_takes_what_the_file_says(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0")
    site.models(responseTimeout=60)

    assert site.findings() == []


def test_a_broken_archive_that_is_not_loaded_is_a_warning(site: Site) -> None:
    (site.store / "old.mar").write_bytes(b"no zip")
    expect(site, "warning", "old.mar", "of no use where it is")


def test_a_broken_build_report_is_a_warning(site: Site) -> None:
    (site.store / "mini.build.json").write_text("{")
    expect(site, "warning", "build reports", "is not JSON")


def test_workers_that_do_not_fit_by_their_build_reports(site: Site) -> None:
    report = {"name": "mini", "version": "1.0", "rss_mb": 3500}
    (site.store / "mini.build.json").write_text(json.dumps(report))
    expect(site, "problem", "models", "the kernel would end one")


def test_requirements_nobody_installs(site: Site, write_mar: Callable[..., Path]) -> None:
    path = write_mar("mini", "1.0")
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    manifest["model"]["requirementsFile"] = "requirements.txt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))

    expect(site, "warning", "mini-1.0.mar", "it brings requirements.txt")


def test_two_versions_and_the_one_that_answers(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "2.0", config=YAML)
    models = json.loads(str(site.values["models"]))
    models["mini"]["2.0"] = models["mini"]["1.0"] | {"minWorkers": 1, "maxWorkers": 1}
    site.values |= {"models": json.dumps(models), "load_models": "mini-1.0.mar,mini-2.0.mar"}
    expect(site, "warning", "models: mini 2.0", "loaded first, 1.0")

    site.values["load_models"] = "all"
    expect(site, "warning", "load_models", "left to the file system")


def test_everything_of_a_store_is_loaded_folders_too(site: Site) -> None:
    (site.store / "unpacked").mkdir()
    site.values["load_models"] = "all"

    expect(site, "warning", "load_models", "unpacked in the model store")


OTHER = '{"other": {"1.0": {}}}'


def test_a_model_behind_a_url_is_not_taken_for_unmatched(site: Site) -> None:
    site.values |= {"models": OTHER, "load_models": "mini-1.0.mar,https://h/other.mar"}
    expect(site, "hint", "models", "https://h/other.mar was not read")


@pytest.mark.parametrize("load_models", ["all", "mini-1.0.mar,unpacked"])
def test_a_model_in_a_folder_is_not_taken_for_unmatched(site: Site, load_models: str) -> None:
    (site.store / "unpacked").mkdir()
    site.values |= {"models": OTHER, "load_models": load_models}
    expect(site, "hint", "models", "unpacked was not read")


def test_a_model_in_a_broken_archive_is_not_taken_for_unmatched(site: Site) -> None:
    (site.store / "other.mar").write_bytes(b"no zip")
    site.values |= {"models": OTHER, "load_models": "mini-1.0.mar,other.mar"}
    expect(site, "hint", "models", "other.mar was not read")


def test_models_of_the_command_line_are_described_without_a_problem(site: Site) -> None:
    site.values["load_models"] = None

    assert [one.key for one in site.findings() if one.severity != "hint"] == ["load_models"]


def test_the_file_that_ts_config_file_names_by_another_path_is_this_one(site: Site) -> None:
    link = site.store / "link.properties"
    link.symlink_to(site.store / "config.properties")
    site.environ = {"TS_CONFIG_FILE": str(link)}

    assert site.findings() == []


def write_handler(path: Path, handler: object, **files: str) -> None:
    """Write an archive that names another handler in its manifest."""
    model = {"modelName": "mini", "modelVersion": "1.0", "handler": handler}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.parametrize("module", ["utils", "service", "metrics", "context"])
@pytest.mark.parametrize("form", ["{}.py", "{}", "{}.py:handle", "folder/{}.py"])
def test_a_handler_that_is_called_like_a_module_of_the_worker(site: Site, module: str, form: str) -> None:
    write_handler(site.store / "mini-1.0.mar", form.format(module))
    expect(site, "problem", "mini-1.0.mar", f"imports TorchServe's own {module} instead")


@pytest.mark.parametrize("handler", ["my_utils.py", "utils.py.d/echo.py", "echo.py:metrics", None])
def test_a_handler_that_is_not(site: Site, handler: object) -> None:
    write_handler(site.store / "mini-1.0.mar", handler, **{"utils.py": "", "tokenizers/x.json": ""})
    assert site.findings() == []


@pytest.mark.parametrize("package", ["ts_handlers", "tokenizers"])
def test_a_member_that_hides_an_installed_package(site: Site, package: str) -> None:
    write_handler(site.store / "mini-1.0.mar", "echo.py", **{f"{package}.py": ""})
    expect(site, "problem", "mini-1.0.mar", f"hides the installed package {package}")


def test_an_archive_that_goes_while_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="changed while it was read"):
        read_contents(tmp_path / "gone.mar")


def test_open_management_with_the_model_api_and_no_token(site: Site) -> None:
    site.values |= {"management_address": "http://0.0.0.0:8081", "disable_token_authorization": "true"}
    expect(site, "warning", "management_address", "without any token")

    site.values["enable_model_api"] = "true"
    expect(site, "problem", "management_address", "can load code")


def test_open_inference_without_tokens(site: Site) -> None:
    site.values |= {"inference_address": "http://0.0.0.0:8080", "disable_token_authorization": "true"}
    expect(site, "warning", "disable_token_authorization", "any client that reaches")


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


def test_metrics_of_others_are_theirs(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0")
    (site.store / "metrics.yaml").write_text("model_metrics: {counter: [{name: x}]}\n")
    assert site.findings() == []

    site.values["metrics_config"] = None
    assert site.findings() == []


def test_a_handler_table_of_torchserves_examples_is_not_ours(site: Site, write_mar: Callable[..., Path]) -> None:
    (site.store / "metrics.yaml").write_text("model_metrics: {counter: [{name: x}]}\n")
    write_mar("mini", "1.0", config=YAML.replace("task: text-classification", "max_length: 50"))
    assert site.findings() == []

    write_mar("mini", "1.0", config=YAML)
    expect(site, "warning", "metrics_config", "drops metrics it does not name")


@given(st.dictionaries(st.sampled_from([*KNOWN, "x"]), st.text(max_size=12) | st.sampled_from(["true", "0", "1"])))
def test_any_values_are_judged_and_none_breaks_the_check(values: dict[str, str]) -> None:
    text = properties.render(properties.Entry(key, value) for key, value in values.items())
    found = find_traps(gather_text(Path("/nowhere/config.properties"), text, {}, MACHINE))

    assert all(one.key and one.why and one.remedy for one in found)


def test_a_file_that_is_none_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        gather(tmp_path / "no.properties")


def test_this_machine_is_looked_at() -> None:
    machine = this_machine()

    assert machine.budget.affinity
    assert machine.num_node_cpus >= len(machine.budget.affinity)
    assert machine.memory_mb > 0


def test_a_stock_file_is_understood(tmp_path: Path, write_mar: Callable[..., Path]) -> None:
    """As TorchServe's own documentation begins: addresses, a store and everything in it."""
    store = write_mar("mini", "1.0").parent
    file = tmp_path / "config.properties"
    file.write_text(f"inference_address=http://0.0.0.0:8080\nmodel_store={store}\nload_models=all\n")
    found = find_traps(gather(file, {}, IN_POD))

    assert [one.severity for one in found] == sorted(
        (one.severity for one in found), key=["problem", "warning", "hint"].index
    )
    assert {(one.severity, one.key) for one in found} >= {
        ("problem", "models: mini 1.0"),
        ("warning", "vmargs"),
        ("warning", "allowed_urls"),
        ("warning", "metrics_mode"),
    }
