"""The temporary folder of one server: what TorchServe unpacks there goes with the server.

Java puts archives and the workers' sockets into java.io.tmpdir, never into TMPDIR, and removes neither when it is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.process.ports import TMPDIR_OPTION, worker_socket

_MAX_SOCKET_BYTES = 100
"""Bytes of a unix socket's path: the kernel takes 107, Java's library a few less."""


@contextmanager
def own_temporary(run_folder: Path, vmargs: Sequence[str], base: str | None = None) -> Iterator[Path | None]:
    """Make the folder, without what an earlier server of the run folder left there, and remove it in the end.

    Args:
        run_folder: The run folder; whoever holds its lock calls this.
        vmargs: Java's options; where they name a folder of their own it is the operator's.
        base: Folder to make it in (TEMP, which TorchServe's launcher reads, too); by default the run folder.

    Yields:
        The folder, or a short link to it where a worker's socket in it would have too long a path; None where the operator
        has chosen one.

    Raises:
        OperatorError: It cannot be made, or a server that lives has it.
    """
    if any(option.startswith(TMPDIR_OPTION) for option in vmargs):
        yield None
        return
    name = _own_name(run_folder)
    folder = Path(base).resolve() / name if base else run_folder / "tmp"
    link = _short_place(f"{name}-link")
    try:
        _remove_left(folder, link)
        folder.mkdir(mode=0o700, parents=True)
        is_long = not _is_short(folder)
        if is_long:
            link.symlink_to(folder)
        lock = _lock(folder)
    except BlockingIOError as error:
        raise OperatorError(
            f"{folder} is in use by another server, whose run folder has the path of this one (in another container?); "
            "set TEMP to another folder for one of them"
        ) from error
    except OSError as error:
        raise OperatorError(f"cannot make {folder}: {error.strerror or error}; choose another --run-dir") from error
    try:
        yield link if is_long else folder
    finally:
        _remove(folder, link)
        os.close(lock)


def _short_place(name: str) -> Path:
    """Return where a link can be whose sockets have short paths: TMPDIR may be as long as what is linked to."""
    places = (Path(folder) / name for folder in (tempfile.gettempdir(), "/tmp"))  # noqa: S108
    return next(place for place in places if _is_short(place))


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(worker_socket(folder, 65535))) <= _MAX_SOCKET_BYTES


def _own_name(run_folder: Path) -> str:
    """Return a name that is the same for a run folder each time, so that the next server finds what a dead one left."""
    return f"ts-{os.getuid()}-{hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:12]}"


def _lock(folder: Path) -> int:
    """Return a descriptor of the folder that holds it for this process, and no child of it, until it is closed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(folder: Path, link: Path) -> None:
    """Remove what a dead server left; raise BlockingIOError where the server lives."""
    if folder.is_symlink() or not folder.exists() or folder.stat().st_uid != os.getuid():
        _remove(folder, link)
        return
    lock = _lock(folder)
    try:
        _remove(folder, link)
    finally:
        os.close(lock)


def _remove(folder: Path, link: Path) -> None:
    """Remove both where they are ours; somebody else's in their place is left, and the server does not start."""
    for path in (link, folder):
        if path.is_symlink():
            if path.lstat().st_uid == os.getuid():
                path.unlink()
        elif path == folder and path.exists() and path.stat().st_uid == os.getuid():
            shutil.rmtree(path)
