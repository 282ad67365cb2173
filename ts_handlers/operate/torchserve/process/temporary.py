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
from contextlib import ExitStack, contextmanager, nullcontext
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
    # the same for a run folder each time, so that the next server finds what a dead one left
    name = f"ts-{os.getuid()}-{hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:12]}"
    folder = Path(base).resolve() / name if base else run_folder / "tmp"
    link = folder if _is_short(folder) else _short_place(f"{name}-link")
    with ExitStack() as stack:
        try:
            with _held(folder) if folder.is_dir() and _is_removable(folder) else nullcontext():
                _remove(folder, link)
            folder.mkdir(mode=0o700, parents=True)
            stack.enter_context(_held(folder))
            stack.callback(_remove, folder, link)
            if link != folder:
                link.symlink_to(folder)
        except BlockingIOError as error:
            raise OperatorError(
                f"{folder} is in use by another server, whose run folder has the path of this one (in another "
                "container?); set TEMP to another folder for one of them"
            ) from error
        except OSError as error:
            raise OperatorError(f"cannot make {folder}: {error.strerror or error}; choose another --run-dir") from error
        yield link


def _short_place(name: str) -> Path:
    """Return where a link can be whose sockets have short paths: TMPDIR may be as long as what is linked to."""
    places = (Path(folder) / name for folder in (tempfile.gettempdir(), "/tmp"))  # noqa: S108
    return next(place for place in places if _is_short(place))


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(worker_socket(folder, 65535))) <= _MAX_SOCKET_BYTES


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, and no child of it.

    Raises:
        BlockingIOError: A server that lives holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_removable(path: Path) -> bool:
    """Say whether this is ours and no link; somebody else's is left, and the server does not start."""
    return not path.is_symlink() and path.exists() and path.stat().st_uid == os.getuid()


def _remove(folder: Path, link: Path) -> None:
    """Remove the folder and the link to it, or a link in its place, where they are ours."""
    for path in {link, folder}:
        if path.is_symlink() and path.lstat().st_uid == os.getuid():
            path.unlink()
    if _is_removable(folder):
        shutil.rmtree(folder)
