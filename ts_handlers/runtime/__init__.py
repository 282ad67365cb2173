"""Engines: a Session protocol, and one file a backend."""

from __future__ import annotations

from ts_handlers.batching.parallel import ParallelCalls
from ts_handlers.runtime.engines import open_session
from ts_handlers.runtime.session import ModelFiles, Session
from ts_handlers.shapes import Shape

__all__ = ["ModelFiles", "ParallelCalls", "Session", "Shape", "open_session"]
