"""The handler that an archive names, as far as its file says: whose it is, and which classes it defines."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from ts_handlers.config.sections import HandlerConfig
from ts_handlers.operate.torchserve.archives import Archive

_OUR_SETTINGS = {setting.name for setting in dataclasses.fields(HandlerConfig)}
_SHARED_SETTINGS = {"profile"}
"""What TorchServe's own handlers read from the same table."""

_OUR_IMPORT = re.compile(r"^\s*(?:from|import)\s+ts_handlers\b", re.MULTILINE)


def is_ours(archive: Archive) -> bool:
    """Whether one of our handlers serves it: TorchServe's examples have a `handler:` in their yaml, too."""
    table = (archive.settings or {}).get("handler")
    own = set(table) - _SHARED_SETTINGS if isinstance(table, dict) else set()
    return (bool(own) and own <= _OUR_SETTINGS) or _OUR_IMPORT.search(archive.source) is not None


def classes_of(archive: Archive) -> tuple[str, ...] | None:
    """Return the classes the loader chooses among; None where it takes a function, or where reading does not tell."""
    try:
        body = ast.parse(archive.source).body
    except (SyntaxError, ValueError, RecursionError):  # it may be of a later Python than this one
        return None
    names = [name for statement in _statements(body) for name in _bound(statement)]
    if not archive.source or "*" in names or (archive.handler.partition(":")[2] or "handle") in names:
        return None
    always, sometimes = _classes(body), _classes(_statements(body))
    return always if len(always) > 1 or sometimes == always else None


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
