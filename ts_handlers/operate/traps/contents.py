"""What is in an archive besides its settings: the handler its manifest names, and its members."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.archives import BROKEN_ZIP
from ts_handlers.reading import parse_json, read_member


@dataclass(frozen=True, slots=True)
class Contents:
    """What the loader finds in one archive.

    Attributes:
        handler: `handler` of its manifest; empty where it names none.
        members: Paths of its files.
        source: The handler's file; empty where it is not in the archive (a handler of TorchServe's own).
    """

    handler: str
    members: frozenset[str]
    source: str = ""

    @property
    def handler_module(self) -> str:
        """The top-level name the handler is imported by."""
        return self.handler.partition(":")[0].rpartition("/")[2].removesuffix(".py")

    @property
    def handler_classes(self) -> tuple[str, ...] | None:
        """The classes the loader chooses among; None where it takes a function, or where reading does not tell."""
        try:
            body = ast.parse(self.source).body
        except (SyntaxError, ValueError, RecursionError):  # it may be of a later Python than this one
            return None
        names = [name for statement in _statements(body) for name in _bound(statement)]
        if not self.source or "*" in names or (self.handler.partition(":")[2] or "handle") in names:
            return None
        always, sometimes = _classes(body), _classes(_statements(body))
        return always if len(always) > 1 or sometimes == always else None


def read_contents(path: Path) -> Contents:
    """Look into an archive whose manifest was read before.

    Raises:
        OperatorError: It cannot be read, or not any more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            handler = parse_json(read_member(archive, "MAR-INF/MANIFEST.json"))["model"].get("handler")
            contents = Contents(handler if isinstance(handler, str) else "", frozenset(archive.namelist()))
            file = f"{contents.handler_module}.py"
            if file not in contents.members:
                return contents
            return replace(contents, source=read_member(archive, file).decode("utf-8", errors="replace"))
    except (OSError, *BROKEN_ZIP) as error:
        raise OperatorError(f"{path} is damaged, or changed while it was read ({error}); copy it again") from error


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's statements, those within `if`, `try` and `with` included."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            for name in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, name, ()))
            for handler in getattr(statement, "handlers", ()):
                yield from _statements(handler.body)


def _classes(statements: Iterable[ast.stmt]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.name for item in statements if isinstance(item, ast.ClassDef)))


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a function, an import or an assignment binds."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
