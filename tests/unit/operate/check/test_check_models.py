"""Models, snapshots, archives and their yaml: a sound store, one thing changed, and what the check says of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.check.sites import IN_POD, MACHINE, YAML, Site, expect


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"maxBatchDelay": 0}, "problem", "TorchServe makes 100 ms of it"),
        ({"batchSize": 0}, "problem", "the default instead"),
        ({"batchSize": "many"}, "problem", "ends when it loads the model"),
        ({"batchSize": float("inf")}, "problem", "it is no whole number"),
        ({"minWorkers": None}, "problem", "it is no whole number"),
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


def test_workers_that_nobody_counts_are_one_for_each_cpu_of_the_node(site: Site) -> None:
    site.machine = IN_POD
    site.values.update({"vmargs": "-Xmx512m", "default_workers_per_model": None, "models": None})

    expect(site, "problem", "models: mini 1.0", "TorchServe starts 64, one for each CPU")


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


@pytest.mark.parametrize(
    ("load_models", "unread"),
    [
        ("mini-1.0.mar,https://h/other.mar", "https://h/other.mar"),
        ("mini-1.0.mar,other.mar", "other.mar"),
        ("mini-1.0.mar,unpacked", "unpacked"),
        ("all", "other.mar, unpacked"),
    ],
)
def test_a_model_in_what_cannot_be_read_is_not_taken_for_unmatched(site: Site, load_models: str, unread: str) -> None:
    (site.store / "unpacked").mkdir()
    (site.store / "other.mar").write_bytes(b"no zip")
    site.values |= {"models": '{"other": {"1.0": {}}}', "load_models": load_models}
    expect(site, "hint", "models", f"{unread} was not read")


def test_a_model_that_is_loaded_under_another_name(site: Site) -> None:
    site.values["load_models"] = "renamed=mini-1.0.mar"
    expect(site, "problem", "models", "there are: renamed 1.0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ""),
        ("{'mini': {'1.0': {'minWorkers': 1, 'maxWorkers': 1, 'batchSize': 4, 'maxBatchDelay': 5}}}", ""),
        ("{mini: {1.0: {minWorkers: 1; maxWorkers=1, batchSize=>4}}} ", ""),
        ("", "it is empty"),
        ('{"mini": {"1.0": {}}, "mini": {"1.0": {}}}', "'mini' is given twice"),
        ('{"mini": {"1.0": {"batchSize": 4,}}}', "should be a name"),
        ('{"mini": {"1.0": {}}} # the models', "nothing behind it"),
        ('{"mini": null}', "None should be an object"),
    ],
)
def test_models_are_read_as_gson_reads_them(site: Site, text: str, words: str) -> None:
    site.values |= {"models": text, "default_workers_per_model": "1"}
    problems = [one.describe() for one in site.findings() if one.severity == "problem"]
    assert [words in problem for problem in problems] == ([True] if words else [])


ENTRY = {"defaultVersion": True, "marName": "mini-1.0.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1}
ENTRY |= {"maxBatchDelay": 5}


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ({"modelCount": 1, "models": {"mini": {"1.0": ENTRY}}}, ""),
        ({"modelCount": 1, "models": {"mini": {"1.0": ENTRY | {"maxBatchDelay": None}}}}, "no maxBatchDelay"),
        ({"modelCount": 1, "models": {"mini": {"1.0": ENTRY | {"batchSize": "x"}}}}, "it is no whole number"),
        ({"modelCount": 1, "models": {"mini": {"1.0": ENTRY | {"marName": "gone.mar"}}}}, "gone.mar: TorchServe does"),
        ({"modelCount": 0, "models": {"mini": {"1.0": ENTRY}}}, "no model is loaded"),
        ({"modelCount": "x", "models": {"mini": {"1.0": ENTRY}}}, "no whole number"),
        ({"modelCount": 1, "models": {"mini": 3}}, "no models by name and version"),
        ({"modelCount": 1}, "no models by name and version"),
        ('{"modelCount": 1, "models": {"mini": {', "and it ends"),
        ("startup.cfg", "no models by name and version"),
    ],
)
def test_a_snapshot(site: Site, snapshot: object, words: str) -> None:
    text = snapshot if isinstance(snapshot, str) else json.dumps(snapshot)
    site.values |= {"model_snapshot": text, "models": None, "load_models": None}
    problems = [one.describe() for one in site.findings() if one.severity == "problem"]
    assert [words in problem for problem in problems] == ([True] if words else [])

    expect(site, "warning", "model_snapshot", "and neither load_models nor any")
    site.values["load_models"] = "mini-1.0.mar"
    expect(site, "problem", "model_snapshot", "beside load_models")


def test_models_of_the_command_line_are_described_without_a_problem(site: Site) -> None:
    site.values["load_models"] = None

    assert [one.key for one in site.findings() if one.severity != "hint"] == ["load_models"]


@pytest.mark.parametrize(
    ("config", "severity", "key", "words"),
    [
        (YAML + "batchSize: 32\n", "warning", "models: mini 1.0", "batchSize 8: the archive's model-config.yaml"),
        (YAML + "minWorkers: 1\nmaxWorkers: 1\n", "warning", "models: mini 1.0", "minWorkers 2: the archive's"),
        (YAML + "minWorkers: 2\n", "warning", "mini-1.0.mar", "ignored unless maxWorkers is as large"),
        (YAML + "batch_size: 8\n", "warning", "mini-1.0.mar", "write batchSize"),
        (YAML + "batchSize: '8'\n", "warning", "mini-1.0.mar", "it wants a whole number without quotes"),
        (YAML + "maxBatchDelay: 0\n", "warning", "mini-1.0.mar", "waits 100 ms unless config.properties"),
        (YAML + "batchSize: 0\n", "warning", "mini-1.0.mar", "TorchServe makes 1 of it"),
        (YAML + "jobQueueSize: -1\n", "warning", "mini-1.0.mar", "as if it were not there"),
        (YAML + "jobQueueSize: 2\n", "warning", "job_queue_size", "2, with batches of 8"),
        ("handler: {}\n", "warning", "models: mini 1.0", "it sets none, and TorchServe takes 120; write 120 here"),
        (YAML.replace("  task", "  cpu: {threads: 4}\n  task"), "warning", "mini-1.0.mar", "more than 2 CPUs"),
        ("", "problem", "mini-1.0.mar", "TorchServe ends when it loads it"),
        ("on: 1\n", "problem", "mini-1.0.mar", "has the key True"),
        ("minWorkers: 1\n  maxWorkers: [1\n", "problem", "mini-1.0.mar", "which is never ready"),
        (YAML + "deviceType: xpu\n", "warning", "mini-1.0.mar", "cpu or gpu"),
        (YAML + "deviceIds: 0,1\n", "warning", "mini-1.0.mar", "[0, 1]"),
        (YAML + "parallelType: xpp\n", "warning", "mini-1.0.mar", "pptp"),
        (YAML + "useJobTicket: 'yes'\n", "warning", "mini-1.0.mar", "true or false"),
        (YAML + "clientTimeoutInMills: 1.5\n", "warning", "mini-1.0.mar", "a whole number"),
        (YAML + "deviceType: gpu\n", "warning", "mini-1.0.mar", "finds no GPU here"),
        (YAML + "maxWorkers: 2\n", "warning", "mini-1.0.mar", "ignored without minWorkers"),
        (YAML + "minWorkers: 2\nmaxWorkers: 8\n", "hint", "mini-1.0.mar", "never starts more"),
    ],
)
def test_a_yaml(site: Site, write_mar: Callable[..., Path], config: str, severity: str, key: str, words: str) -> None:
    site.machine = replace(MACHINE, gpus=0)
    write_mar("mini", "1.0", config=config)
    expect(site, severity, key, words)


def test_an_archive_without_yaml_takes_what_the_file_says(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0")
    site.models(responseTimeout=60)

    assert site.findings() == []


def test_a_broken_archive_that_is_not_loaded_is_a_warning(site: Site) -> None:
    (site.store / "old.mar").write_bytes(b"no zip")
    expect(site, "warning", "old.mar", "of no use where it is")


def write_model(site: Site, handler: object, requirements: str | None = None, **files: str) -> None:
    """Write an archive that names another handler in its manifest."""
    model = {"modelName": "mini", "modelVersion": "1.0", "handler": handler, "requirementsFile": requirements}
    with zipfile.ZipFile(site.store / "mini-1.0.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        for name, text in files.items():
            archive.writestr(name, text)


def test_requirements_nobody_installs(site: Site) -> None:
    write_model(site, "echo.py", "requirements.txt")
    expect(site, "warning", "mini-1.0.mar", "it brings requirements.txt")


@pytest.mark.parametrize("module", ["utils", "service", "metrics", "context"])
@pytest.mark.parametrize("form", ["{}.py", "{}", "{}.py:handle", "folder/{}.py"])
def test_a_handler_that_is_called_like_a_module_of_the_worker(site: Site, module: str, form: str) -> None:
    write_model(site, form.format(module))
    expect(site, "problem", "mini-1.0.mar", f"imports TorchServe's own {module} instead")


@pytest.mark.parametrize("handler", ["my_utils.py", "utils.py.d/echo.py", "echo.py:metrics"])
def test_a_handler_that_is_not(site: Site, handler: object) -> None:
    write_model(site, handler, **{"utils.py": "", "tokenizers/x.json": ""})
    assert site.findings() == []


@pytest.mark.parametrize("package", ["ts_handlers", "tokenizers"])
def test_a_member_that_hides_an_installed_package(site: Site, package: str) -> None:
    files = {f"{package}.py": "", "echo.py": "def handle(data, context): ..."}
    write_model(site, "echo.py", **files)
    assert site.findings() == []

    write_model(site, "echo.py", **files | {"echo.py": "from ts_handlers import handle"})
    expect(site, "problem", "mini-1.0.mar", f"{package}.py: it hides the installed package")


TWO = "class A:\n    pass\n\nclass B:\n    pass\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (TWO, "echo.py defines A and B"),
        ("from ts_handlers import TextClassificationHandler\n", "echo.py defines no class"),
        (TWO + "def other(data, context): ...\n", "echo.py defines A and B"),
    ],
)
def test_a_handler_file_that_does_not_define_one_class(site: Site, source: str, words: str) -> None:
    write_model(site, "echo.py", **{"echo.py": source})
    expect(site, "problem", "mini-1.0.mar", words)


@pytest.mark.parametrize(
    ("handler", "source"),
    [
        ("echo.py", "class A: pass\nclass A: pass\n"),
        ("echo.py", "class A:\n    class Inner: pass\n\ndef make():\n    class Local: pass\n"),
        ("echo.py", TWO + "def handle(data, context): ...\n"),
        ("echo.py", TWO + "handle = A()\n"),
        ("echo.py", "from others import serve as handle\n"),
        ("echo.py", "from others import *\n"),
        ("echo.py", "try:\n    import a\nexcept ImportError:\n    class A: pass\nelse:\n    class B: pass\n"),
        ("echo.py", "if True:\n    class A: pass\n"),
        ("echo.py:serve", TWO + "def serve(data, context): ...\n"),
        ("echo.py", "class A: pass\nclass B: pass\nthis is no Python\n"),
        ("text_classifier", ""),
    ],
)
def test_a_handler_file_that_is_right_or_cannot_be_told(site: Site, handler: str, source: str) -> None:
    write_model(site, handler, **({"echo.py": source} if source else {}))
    assert not [found for found in site.findings() if "define" in found.describe()]


def test_an_async_model_needs_no_batch(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0", config="maxBatchDelay: 100\nasyncCommunication: true\n")
    site.values["models"] = None
    assert site.findings() == []


def test_a_handler_that_nobody_names(site: Site) -> None:
    write_model(site, None)
    expect(site, "problem", "mini-1.0.mar", "its manifest names no handler")

    site.values["default_service_handler"] = "echo.py"
    assert site.findings() == []


def test_a_model_in_a_folder_is_read_like_an_archive(site: Site) -> None:
    folder = site.store / "unpacked"
    (folder / "MAR-INF").mkdir(parents=True)
    model = {"modelName": "f", "modelVersion": "1.0", "handler": "h.py", "configFile": "c.yaml"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}))
    (folder / "c.yaml").write_text("BatchSize: 4\nminWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\n")
    site.values |= {"load_models": "unpacked", "models": None}

    expect(site, "warning", "unpacked", "write batchSize")
