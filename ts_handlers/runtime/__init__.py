"""Engines: a Session protocol, and one file a backend."""

from __future__ import annotations

from ts_handlers.runtime.engines import open_session
from ts_handlers.runtime.session import ModelFiles, Session

__all__ = ["ModelFiles", "Session", "open_session"]
