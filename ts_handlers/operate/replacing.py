"""Files replaced in one step: whoever reads them, or kills us, finds the old content or the new."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from ts_handlers.errors import OperatorError


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


def unfinished(path: Path) -> list[Path]:
    """Return what those have left who were killed while they wrote this file."""
    return list(path.parent.glob(f".{escape(path.name)}.*.part"))
