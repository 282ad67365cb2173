from __future__ import annotations

import os
from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.replacing import replacing, unfinished


def write_half(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("ne", encoding="utf-8")
        raise KeyboardInterrupt


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    before = os.umask(0o027)
    try:
        with replacing(path) as part:
            part.write_text("new", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "new"
    assert path.stat().st_mode & 0o777 == 0o640  # as any new file: others may read it, if the umask lets them
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert [each.read_text(encoding="utf-8") for each in tmp_path.iterdir()] == ["old"]


def test_two_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "first"  # the last to end
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["none/file", "file/file", "folder"])
def test_a_place_that_cannot_be_written_is_the_operators_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(OperatorError, match=r"cannot write .*; choose another place with --output"),
        replacing(tmp_path / place) as part,
    ):
        part.write_text("", encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_a_killed_writer_left_is_known(tmp_path: Path) -> None:
    (tmp_path / ".hidden.part").touch()
    with replacing(tmp_path / "[a].json") as part, replacing(tmp_path / "a.json") as other:
        part.touch()
        other.touch()
        assert unfinished(tmp_path / "[a].json") == [part]
    assert unfinished(tmp_path / "[a].json") == []
