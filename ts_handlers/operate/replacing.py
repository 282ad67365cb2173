"""Files replaced in one step: whoever reads them, or kills us, finds the old content or the new."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ts_handlers.errors import OperatorError

_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write; move it to `path` after the block, or remove it if the block fails.

    Two that write the same file do not meet: each has a place of its own, and the last to end wins.

    Raises:
        OperatorError: The place cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OperatorError(
            f"cannot write {path}: {error.strerror or error}; choose another place with --output"
        ) from error
    finally:
        with suppress(OSError):  # what went wrong before is what counts
            part.unlink(missing_ok=True)


def finished_name(name: str) -> str:
    """Return the name of the file that a part is of, which somebody who was killed has left; any other name as it is."""
    match = _PART.fullmatch(name)
    return match["name"] if match else name


def remove_parts(folder: Path) -> None:
    """Remove what was left unfinished in a folder that nobody else writes to."""
    for path in folder.iterdir():
        if finished_name(path.name) != path.name:
            path.unlink(missing_ok=True)
