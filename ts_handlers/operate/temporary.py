"""The temporary folder of one server: what TorchServe unpacks there goes with the server.

Java puts archives and the workers' sockets into java.io.tmpdir, never into TMPDIR, and removes neither when it is killed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.ports import TMPDIR_OPTION, worker_socket

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
        OperatorError: It cannot be made.
    """
    if any(option.startswith(TMPDIR_OPTION) for option in vmargs):
        yield None
        return
    name = _own_name(run_folder)
    folder = Path(base).resolve() / name if base else run_folder / "tmp"
    link = Path(tempfile.gettempdir()) / f"{name}-link"
    try:
        _remove(folder, link)
        folder.mkdir(mode=0o700, parents=True)
        is_long = len(os.fsencode(worker_socket(folder, 65535))) > _MAX_SOCKET_BYTES
        if is_long:
            link.symlink_to(folder)
    except OSError as error:
        raise OperatorError(f"cannot make {folder}: {error.strerror or error}; choose another --run-dir") from error
    try:
        yield link if is_long else folder
    finally:
        _remove(folder, link)


def _own_name(run_folder: Path) -> str:
    """Return a name that is the same for a run folder each time, so that the next server finds what a dead one left."""
    return f"ts-{os.getuid()}-{hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:12]}"


def _remove(folder: Path, link: Path) -> None:
    """Remove both where they are ours; somebody else's in their place is left, and the server does not start."""
    for path in (link, folder):
        if path.is_symlink():
            if path.lstat().st_uid == os.getuid():
                path.unlink()
        elif path == folder and path.exists() and path.stat().st_uid == os.getuid():
            shutil.rmtree(path)
