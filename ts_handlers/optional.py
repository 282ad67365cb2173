"""Packages that come with an extra: imported when they are needed, named where they are missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ts_handlers.errors import RuntimeUnavailableError


def import_optional(module: str, purpose: str, *, extra: str) -> ModuleType:
    """Import a module of a package that not every installation has.

    Args:
        module: The module.
        purpose: What the package is for, as the beginning of a sentence: "load is generated with aiohttp".
        extra: The extra of ts_handlers that brings it.

    Raises:
        RuntimeUnavailableError: It cannot be imported; says why, and what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"{purpose}, which cannot be imported ({error}): pip install 'ts_handlers[{extra}]'"
        ) from error


@contextmanager
def not_imported(module: str) -> Iterator[None]:
    """Make a module look as if it were not installed, for what probes for it and would not use it; not if it is imported."""
    if module in sys.modules:
        yield
        return
    blocked: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is how imports are blocked
    blocked[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
