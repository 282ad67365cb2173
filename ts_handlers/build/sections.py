"""model-config.yaml's `handler:` section: what the source and the engine say, with the command line's settings over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ts_handlers.build.engine import Engine
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.config.sections import load_config
from ts_handlers.config.tasks import TASKS


def source_section(request: BuildRequest, source: ModelSource) -> dict[str, Any]:
    """Return the section as far as the engine has no part in it.

    Raises:
        ConfigError: A setting that the handler would refuse.
    """
    section = merged({"task": request.task, **source.section()}, request.settings)
    if request.handler is None:
        load_config({"handler": section}, TASKS[request.task].output_config)
    return section


def handler_section(request: BuildRequest, section: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Return the whole section of an archive with this engine.

    Raises:
        ConfigError: A setting that the handler would refuse.
    """
    whole = merged(merged(section, {"runtime": engine.runtime, **engine.sections}), request.settings)
    if request.handler is None:
        load_config({"handler": whole}, TASKS[request.task].output_config)
    return whole


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with another over it, section by section."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result
