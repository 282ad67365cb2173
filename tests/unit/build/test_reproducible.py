"""The same inputs give the same archive, byte for byte, whenever and wherever it is built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ts_handlers.build import archive
from ts_handlers.build.archive import DATE_VARIABLE as VARIABLE
from ts_handlers.build.archive import MANIFEST, creation_time
from ts_handlers.errors import OperatorError

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

NEXT_YEAR = """
import datetime, time

_localtime, _datetime = time.localtime, datetime.datetime
time.localtime = lambda *seconds: _localtime((seconds[0] if seconds else time.time()) + 31_536_000)


class Later(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(days=365)


datetime.datetime = Later
"""
"""A sitecustomize.py: what reads the clock through these reads another year."""


@pytest.fixture(autouse=True)
def _no_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def pack(folder: Path, *, mode: int = 0o644, modified: int = 1_700_000_000) -> Path:
    """Make an archive of small files that have this mode and date."""
    folder.mkdir()
    files = {name: folder / name for name in ("model.onnx", "handler.py", "model-config.yaml", "b.json", "a.json")}
    for name, file in files.items():
        file.write_text(f"content of {name}\n" * 100, encoding="utf-8")
        file.chmod(mode)
        os.utime(file, (modified, modified))
    return archive.pack(
        folder / "m.mar",
        name="m",
        version="1.0",
        serialized_file=files["model.onnx"],
        handler_file=files["handler.py"],
        config_file=files["model-config.yaml"],
        extra_files=[files["b.json"], files["a.json"]],
    )


def test_dates_order_and_modes_of_the_files_do_not_show(tmp_path: Path) -> None:
    first = pack(tmp_path / "first")
    second = pack(tmp_path / "second", mode=0o600, modified=1_100_000_001)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as found:
        assert found.namelist() == sorted([*(f"{n}.json" for n in "ab"), MANIFEST, "handler.py", *CONFIGURED])
        assert {info.date_time for info in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in found.infolist()} == {0o100644}
        assert {info.compress_type for info in found.infolist()} == {zipfile.ZIP_DEFLATED}
        assert found.read("model.onnx") == b"content of model.onnx\n" * 100
        manifest = json.loads(found.read(MANIFEST))
    assert manifest["createdOn"] == "01/01/1980 00:00:00"
    assert manifest["model"]["serializedFile"] == "model.onnx"
    assert manifest["archiverVersion"]


CONFIGURED = ("model-config.yaml", "model.onnx")


def test_the_date_of_the_sources_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1700000001")
    with zipfile.ZipFile(pack(tmp_path / "files")) as found:
        assert json.loads(found.read(MANIFEST))["createdOn"] == "14/11/2023 22:13:21"
        assert {info.date_time for info in found.infolist()} == {(2023, 11, 14, 22, 13, 20)}  # two seconds are its unit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", "SOURCE_DATE_EPOCH is 'yesterday'; give seconds since 1970"),
        ("9" * 30, "give seconds since 1970"),
        ("1", "SOURCE_DATE_EPOCH is 1, in 1970; an archive's dates are from 1980 to 2107"),
        ("4354819200", "in 2108; an archive's dates are from 1980 to 2107"),
    ],
)
def test_a_date_that_no_archive_can_have(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(OperatorError, match=message):
        creation_time()


def test_without_a_date_it_is_the_first_a_zip_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert creation_time() == datetime(1980, 1, 1, tzinfo=timezone.utc)


def build(checkpoint: Path, store: Path, *, hash_seed: str, python_path: Path | None = None) -> dict[str, str]:
    """Build in a process of its own; return the digest of each entry, and the archive's as "archive"."""
    command = [sys.executable, "-m", "ts_handlers.cli", "build", str(checkpoint), "--task", "text-classification"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    if python_path is not None:
        environment["PYTHONPATH"] = f"{python_path}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    command += ["--name", "m", "--output", str(store), "--precision", "int8"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    mar = store / "m.mar"
    with zipfile.ZipFile(mar) as found:
        digests = {name: hashlib.sha256(found.read(name)).hexdigest() for name in found.namelist()}
    return {**digests, "archive": hashlib.sha256(mar.read_bytes()).hexdigest()}


def test_two_builds_give_the_same_bytes(model_dirs: ModelDirs, tmp_path: Path) -> None:
    checkpoint = model_dirs.checkpoint("tiny-distilbert")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "sitecustomize.py").write_text(NEXT_YEAR, encoding="utf-8")
    first = build(checkpoint, tmp_path / "store", hash_seed="1")
    second = build(checkpoint, tmp_path / "another-store", hash_seed="2", python_path=tmp_path / "later")
    assert {name for name, digest in first.items() if second.get(name) != digest} == set()
    assert first.keys() == second.keys()
