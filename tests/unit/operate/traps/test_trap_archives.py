from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.operate.traps.sites import YAML, Site, expect
from ts_handlers.errors import OperatorError
from ts_handlers.operate.traps.contents import read_contents


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


def test_requirements_nobody_installs(site: Site, write_mar: Callable[..., Path]) -> None:
    path = write_mar("mini", "1.0")
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    manifest["model"]["requirementsFile"] = "requirements.txt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))

    expect(site, "warning", "mini-1.0.mar", "it brings requirements.txt")


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
