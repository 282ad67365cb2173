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
        (YAML + "maxBatchDelay: 0\n", "warning", "mini-1.0.mar", "waits 100 ms unless config.properties"),
        (YAML + "batchSize: 0\n", "warning", "mini-1.0.mar", "TorchServe makes 1 of it"),
        (YAML + "jobQueueSize: -1\n", "warning", "mini-1.0.mar", "as if it were not there"),
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
    write_handler(site.store / "mini-1.0.mar", "echo.py", **{"echo.py": source})
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
    write_handler(site.store / "mini-1.0.mar", handler, **({"echo.py": source} if source else {}))
    assert not [found for found in site.findings() if "define" in found.describe()]


def test_an_archive_with_a_damaged_handler_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mini-1.0.mar"
    write_handler(path, "echo.py", **{"echo.py": "class A: pass\n"})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"class A: pass", b"class B: pass"))
    with pytest.raises(OperatorError, match=r"is damaged.*CRC"):
        read_contents(path)
