"""The handler that an archive names, as far as its file says: whose it is, and which classes it defines."""

from __future__ import annotations

import ast
import dataclasses
import re
import symtable

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
        tree = ast.parse(archive.source)
        module = symtable.symtable(archive.source, archive.handler_module, "exec")
    except (SyntaxError, ValueError, RecursionError):  # it may be of a later Python than this one
        return None
    has_star = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))
    wanted = archive.handler.partition(":")[2] or "handle"
    if not archive.source or has_star or wanted in module.get_identifiers():
        return None
    always = tuple(dict.fromkeys(item.name for item in tree.body if isinstance(item, ast.ClassDef)))
    sometimes = {scope.get_name() for scope in module.get_children() if scope.get_type() == "class"}  # within `if`, too
    return always if len(always) > 1 or sometimes == set(always) else None
