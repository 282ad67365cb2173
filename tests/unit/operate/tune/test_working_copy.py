from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.archives import read_archive
from ts_handlers.operate.tune.working_copy import (
    fixed_threads,
    freed_settings,
    has_threads,
    place_copy,
    sha256,
    write_copy,
)

FIXED = """
minWorkers: 1
maxWorkers: 1
batchSize: 4
maxBatchDelay: 50
responseTimeout: 60
handler:
  task: text-classification
  cpu: {threads: 3, placement: none}
"""


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read("model-config.yaml"))


def test_what_overrides_config_properties_goes_and_the_rest_stays(
    write_mar: Callable[..., Path], tmp_path: Path
) -> None:
    archive = read_archive(write_mar(config=FIXED, **{"weights.bin": "0" * 5000, "echo_handler.py": "x = 1"}))
    copy = tmp_path / "copy.mar"
    write_copy(archive, copy, freed_settings(archive, None))
    assert config_of(copy) == {
        "responseTimeout": 60,
        "handler": {"task": "text-classification", "cpu": {"placement": "none"}},
    }
    with zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(copy) as new:
        assert new.namelist() == old.namelist()
        assert new.read("weights.bin") == old.read("weights.bin")
        assert json.loads(new.read("MAR-INF/MANIFEST.json")) == json.loads(old.read("MAR-INF/MANIFEST.json"))
    assert archive.setting("minWorkers") == 1  # the original is as it was


def test_threads_are_written(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    archive = read_archive(write_mar(config=FIXED))
    assert fixed_threads(archive) == 3
    write_copy(archive, tmp_path / "copy.mar", freed_settings(archive, 2))
    assert fixed_threads(read_archive(tmp_path / "copy.mar")) == 2


@pytest.mark.parametrize(
    "config", [None, "responseTimeout: 5", "handler: {task: fill}", "handler: {cpu: {threads: 2}}"]
)
def test_an_archive_that_needs_no_change_is_the_same_file(
    write_mar: Callable[..., Path], tmp_path: Path, config: str | None
) -> None:
    archive = read_archive(write_mar(config=config))
    write_copy(archive, tmp_path / "copy.mar", freed_settings(archive, fixed_threads(archive)))
    assert sha256(tmp_path / "copy.mar") == sha256(archive.path)
    place_copy(archive, tmp_path / "link.mar", freed_settings(archive, fixed_threads(archive)))
    assert (tmp_path / "link.mar").readlink() == archive.path


def test_a_placed_archive_that_needs_a_change_is_a_copy(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    archive = read_archive(write_mar(config="batchSize: 4\nhandler: {cpu: {threads: 2}}"))
    place_copy(archive, tmp_path / "copy.mar", freed_settings(archive, None))
    assert config_of(tmp_path / "copy.mar") == {"handler": {}}


@pytest.mark.parametrize(
    ("config", "is_ours", "threads"),
    [
        (None, False, None),
        ("batchSize: 1", False, None),
        ("handler: text", False, None),
        ("handler: {cpu: {threads: 2}, model: another}", False, None),  # somebody else's, with a `cpu` of its own
        ("handler: {}", True, None),
        ("handler: {cpu: null}", True, None),
        ("handler: {cpu: {threads: true}}", True, None),
        ("handler: {cpu: {threads: 2}}", True, 2),
    ],
)
def test_only_a_handler_of_ours_has_threads_to_set(
    write_mar: Callable[..., Path], config: str | None, is_ours: bool, threads: int | None
) -> None:
    archive = read_archive(write_mar(config=config))
    assert has_threads(archive) is is_ours
    assert fixed_threads(archive) == threads
    if not is_ours:
        handler = (archive.settings or {}).get("handler")
        assert (freed_settings(archive, 7) or {}).get("handler") == handler


def test_a_place_that_cannot_be_written_is_said(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    archive = read_archive(write_mar(config="batchSize: 4"))
    with pytest.raises(OperatorError, match="cannot write"):
        write_copy(archive, tmp_path / "none" / "copy.mar", freed_settings(archive, None))
