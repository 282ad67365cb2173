from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.archives import Archive, read_archive, read_archives


def test_an_archive_says_who_it_is_and_what_it_asks_for(write_mar: Callable[..., Path]) -> None:
    archive = read_archive(write_mar("mini", "2.1", config="batchSize: 16\nminWorkers: 0\nhandler:\n  task: x\n"))

    assert (archive.model_name, archive.version, archive.path.name) == ("mini", "2.1", "mini-2.1.mar")
    assert archive.setting("batchSize") == 16
    assert archive.setting("maxBatchDelay") is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("minWorkers", 0, 1),
        ("batchSize", -5, 1),
        ("maxWorkers", 0, None),
        ("maxBatchDelay", 0, None),
        ("batchSize", "8", None),
        ("batchSize", 8.0, None),
        ("batchSize", True, None),
        ("batchSize", 2**31, None),
        ("batchSize", 2**31 - 1, 2**31 - 1),
    ],
)
def test_a_setting_is_read_as_torchserve_reads_it(key: str, value: object, expected: int | None) -> None:
    assert Archive(Path("a.mar"), "a", "1.0", {key: value}).setting(key) == expected


def test_an_archive_without_yaml_asks_for_nothing(write_mar: Callable[..., Path]) -> None:
    archive = read_archive(write_mar())

    assert archive.settings is None
    assert archive.setting("batchSize") is None


def test_all_archives_of_a_folder_are_read(write_mar: Callable[..., Path]) -> None:
    store = write_mar("b").parent
    write_mar("a")
    (store / "config.properties").touch()

    assert [archive.model_name for archive in read_archives(store)] == ["a", "b"]


def test_a_folder_without_archives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"has no \.mar file; build one"):
        read_archives(tmp_path)
    with pytest.raises(OperatorError, match="there is no folder"):
        read_archives(tmp_path / "missing")


def test_the_same_model_and_version_twice_is_refused(write_mar: Callable[..., Path]) -> None:
    path = write_mar("mini", "1.0")
    (path.parent / "copy.mar").write_bytes(path.read_bytes())

    with pytest.raises(OperatorError, match=r"copy\.mar and mini-1\.0\.mar .* both mini version 1\.0; remove one"):
        read_archives(path.parent)


def test_two_versions_of_a_model_are_fine(write_mar: Callable[..., Path]) -> None:
    write_mar("mini", "1.0")

    assert len(read_archives(write_mar("mini", "2.0").parent)) == 2


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mar"
    path.write_bytes(b"not a zip")

    with pytest.raises(OperatorError, match="not a readable zip file"):
        read_archive(path)


def test_a_damaged_archive_is_refused(write_mar: Callable[..., Path]) -> None:
    path = write_mar()
    content = bytearray(path.read_bytes())
    content[content.index(b"createdOn")] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(OperatorError, match="not a readable zip file"):
        read_archive(path)


def test_an_unreadable_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mar"
    path.mkdir()

    with pytest.raises(OperatorError, match="cannot be read"):
        read_archive(path)


@pytest.mark.parametrize("name", ["a,b.mar", "a=b.mar", "a..b.mar"])
def test_a_name_torchserve_cannot_load_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OperatorError, match="rename it"):
        read_archive(tmp_path / name)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "no model archive"),
        ("{", "is not JSON"),
        ("[]", 'no "model" entry'),
        ('{"model": 3}', 'no "model" entry'),
        ('{"model": {"modelVersion": "1.0"}}', "modelName is None"),
        ('{"model": {"modelName": "a/b", "modelVersion": "1.0"}}', "modelName is 'a/b'"),
        ('{"model": {"modelName": "a"}}', "modelVersion is None"),
        (
            '{"model": {"modelName": "a", "modelVersion": "1", "configFile": "c.yaml"}}',
            "names 'c.yaml', which is not in it",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, manifest: str | None, message: str) -> None:
    path = tmp_path / "x.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("handler.py", "")
        if manifest is not None:
            archive.writestr("MAR-INF/MANIFEST.json", manifest)

    with pytest.raises(OperatorError, match=message):
        read_archive(path)


@pytest.mark.parametrize(
    ("config", "message"), [("", "None, not a mapping"), ("- 1", "not a mapping"), ("a: [", "not YAML")]
)
def test_a_yaml_torchserve_would_fail_on_is_refused(write_mar: Callable[..., Path], config: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        read_archive(write_mar(config=config))
