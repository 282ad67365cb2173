"""A finished archive is loaded as a worker does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from ts_handlers.errors import ConfigError
from ts_handlers.testing import load_archive, predict

HANDLER = """
class Handler:
    def initialize(self, context):
        from helper import LOUD
        self.loud = LOUD
        self.folder = context.system_properties["model_dir"]

    def handle(self, data, context):
        return [(row["body"].upper() + self.loud).encode() for row in data]
"""
FUNCTION = "def answer(data, context):\n    return data and [row['body'].encode() for row in data]\n"


def write(path: Path, handler: str, **files: str) -> Path:
    """Write a .mar, or a folder."""
    manifest = json.dumps({"model": {"modelName": "m", "handler": handler}})
    members = {**{name.replace("_py", ".py"): text for name, text in files.items()}, "MAR-INF/MANIFEST.json": manifest}
    if path.suffix != ".mar":
        for name, text in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text, encoding="utf-8")
        return path
    with zipfile.ZipFile(path, "w") as mar:
        for name, text in members.items():
            mar.writestr(name, text)
    return path


@pytest.mark.parametrize("name", ["m.mar", "folder"])
def test_a_class_with_a_module_beside_it(name: str, tmp_path: Path) -> None:
    first = load_archive(write(tmp_path / name, "own.py", own_py=HANDLER, helper_py="LOUD = '!'"))
    assert [answer.body for answer in predict(first, "a", "b")] == [b"A!", b"B!"]


def test_a_function_of_any_name(tmp_path: Path) -> None:
    handler = load_archive(write(tmp_path / "m.mar", "own.py:answer", own_py=FUNCTION))
    assert [answer.body for answer in predict(handler, "a")] == [b"a"]


def test_two_archives_have_handlers_of_one_file_name(tmp_path: Path) -> None:
    first = load_archive(write(tmp_path / "a", "own.py", own_py=FUNCTION.replace("answer", "handle")))
    second = load_archive(write(tmp_path / "b", "own.py", own_py=HANDLER, helper_py="LOUD = '?'"))
    assert predict(first, "x")[0].body == b"x"
    assert predict(second, "x")[0].body == b"X?"


def test_what_was_unpacked_goes_with_the_handler(tmp_path: Path) -> None:
    handler = load_archive(write(tmp_path / "m.mar", "own.py", own_py=HANDLER, helper_py="LOUD = '!'"))
    folder = Path(handler.folder)
    assert folder.exists()
    del handler
    assert not folder.exists()


def test_what_is_no_archive_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "m.mar").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"m\.mar cannot be read as a \.mar"):
        load_archive(tmp_path / "m.mar")
    with pytest.raises(ConfigError, match="no usable MAR-INF/MANIFEST.json"):
        load_archive(tmp_path)
    with pytest.raises(ConfigError, match=r"no handler file own\.py"):
        load_archive(write(tmp_path / "n.mar", "own.py"))
    with pytest.raises(ConfigError, match="must define exactly one class"):
        load_archive(write(tmp_path / "o.mar", "own.py", own_py="x = 1"))
