"""Files replaced in one step: whoever reads them, or kills us, finds the old content or the new."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ts_handlers.errors import OperatorError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write; move it to `path` after the block, or remove it if the block fails.

    Raises:
        OperatorError: The place cannot be written.
    """
    part = part_of(path)
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")
