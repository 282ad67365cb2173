"""Is an engine good enough, and is it fast? Measured, before anything is archived."""

from __future__ import annotations

from ts_handlers.build.gate.answers import Answers
from ts_handlers.build.gate.latency import Latency, measure_latencies
from ts_handlers.build.gate.quality import Limits, Quality, Reference

__all__ = ["Answers", "Latency", "Limits", "Quality", "Reference", "measure_latencies"]
