"""The temporary folder of one server: made anew, short enough for sockets, and gone in the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.process.ports import worker_socket
from ts_handlers.operate.torchserve.process.temporary import own_temporary


def test_what_a_dead_server_left_is_removed_at_the_start_and_the_rest_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "tmp" / "models").mkdir(parents=True)
    (tmp_path / "tmp" / "models" / "old").write_bytes(b"x")
    with own_temporary(tmp_path, ["-Xmx1g"]) as folder:
        assert folder is not None
        assert folder.resolve() == tmp_path / "tmp"
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "models").mkdir()
    assert not (tmp_path / "tmp").exists()


def test_a_long_run_folder_gets_a_short_link_that_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = tmp_path / ("long" * 30)
    run.mkdir()
    for _ in range(2):  # the second finds what the first would have left
        with own_temporary(run, []) as folder:
            assert folder is not None
            assert folder.is_symlink()
            assert folder.resolve() == run / "tmp"
            link = folder
    assert not link.is_symlink()
    link.symlink_to(run / "tmp")
    with own_temporary(run, []) as folder:
        assert folder == link
    link.mkdir()  # somebody's folder in its place
    with pytest.raises(OperatorError, match="choose another --run-dir"), own_temporary(run, []):
        pass
    assert link.is_dir()


def test_a_folder_that_the_operator_chose_is_left_to_the_operator(tmp_path: Path) -> None:
    with own_temporary(tmp_path, ["-Djava.io.tmpdir=/scratch"]) as folder:
        assert folder is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    run = tmp_path / "run"
    run.mkdir()
    (run / "tmp").symlink_to(precious)
    with own_temporary(run, []):
        pass
    assert (precious / "file").exists()


def test_a_base_of_the_operator_s_gets_a_folder_for_each_run_folder(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with own_temporary(tmp_path / "a", [], str(base)) as one, own_temporary(tmp_path / "b", [], str(base)) as other:
        assert one is not None
        assert other is not None
        assert one != other
        assert {folder.resolve().parent for folder in (one, other)} == {base}
    assert list(base.iterdir()) == []


def test_a_link_is_short_where_the_folder_for_links_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 30)
    monkeypatch.setattr("tempfile.tempdir", str(long))  # TMPDIR and TEMP name the same long folder
    with own_temporary(tmp_path / "run", [], str(long)) as folder:
        assert folder is not None
        assert folder.is_symlink()
        assert folder.resolve().parent == long
        assert len(os.fsencode(worker_socket(folder, 65535))) < 108
    assert not folder.is_symlink()


def test_what_a_living_server_holds_is_left_to_it_though_the_run_folder_has_the_same_path(tmp_path: Path) -> None:
    """Two containers that share TEMP: each has a run folder, and the lock in it, of its own."""
    base = str(tmp_path / "base")
    with own_temporary(tmp_path / "run", [], base) as folder:
        assert folder is not None
        (folder / "models").mkdir()
        with pytest.raises(OperatorError, match="another server"), own_temporary(tmp_path / "run", [], base):
            pass
        assert (folder / "models").is_dir()
    with own_temporary(tmp_path / "run", [], base) as folder:
        assert folder is not None
        assert list(folder.iterdir()) == []
