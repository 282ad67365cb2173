from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.traps.sites import IN_POD, YAML, Site, expect


@pytest.mark.parametrize(
    ("changes", "severity", "key", "words"),
    [
        ({"model_snapshot": "{}"}, "problem", "model_snapshot", "beside load_models and models"),
        (
            {"model_snapshot": "{}", "models": None, "load_models": None},
            "warning",
            "model_snapshot",
            "they are not checked",
        ),
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
    ],
)
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


def test_workers_that_nobody_counts_are_one_for_each_cpu_of_the_node(site: Site) -> None:
    site.machine = IN_POD
    site.values.update({"vmargs": "-Xmx512m", "default_workers_per_model": None, "models": None})

    expect(site, "problem", "models: mini 1.0", "here 64")


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
