"""What is in an archive besides its settings: the handler its manifest names, and its members."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Contents:
    """What the loader finds in one archive.

    Attributes:
        handler: `handler` of its manifest; empty where it names none.
        members: Paths of its files.
    """

    handler: str
    members: frozenset[str]

    @property
    def handler_module(self) -> str:
        """The top-level name the handler is imported by."""
        return self.handler.partition(":")[0].rpartition("/")[2].removesuffix(".py")


def read_contents(path: Path) -> Contents:
    """Look into an archive whose manifest was read before.

    Raises:
        OperatorError: It cannot be read any more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            handler = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"].get("handler")
            return Contents(handler if isinstance(handler, str) else "", frozenset(archive.namelist()))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise OperatorError(f"{path} changed while it was read ({error}); copy it again") from error
