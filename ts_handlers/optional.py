"""Packages that come with an extra: imported when they are needed, named where they are missing."""

from __future__ import annotations

import importlib
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
