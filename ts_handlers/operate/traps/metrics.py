"""What reaches Prometheus: the mode, the metrics.yaml, and the handlers' catalogue in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ts_handlers.config import HandlerConfig
from ts_handlers.metrics import CATALOGUE
from ts_handlers.operate.torchserve.models import loaded_models
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Subject

_COMMON = ["ModelName", "Level"]
_OUR_SETTINGS = {setting.name for setting in dataclasses.fields(HandlerConfig)}
_REMEDY = "take the metrics.yaml that ts-handlers configure writes"


def check_metrics(subject: Subject) -> Iterator[Finding]:
    """Check that what is measured arrives."""
    mode = "".join(subject.values.get("metrics_mode", "log").split()).lower()
    if mode == "log" and subject.is_true("enable_metrics_api", default=True):
        yield Finding(
            "warning",
            "metrics_mode",
            subject.values.get("metrics_mode", "not set"),
            "metrics go to the logs only, and the metrics address has none of them",
            "write metrics_mode=prometheus",
        )
    is_ours = any(_has_our_handler(model.archive.settings) for model in loaded_models(subject))
    is_detecting = subject.is_true("model_metrics_auto_detect")
    named = subject.values.get("metrics_config")
    if subject.metrics_file is None or named is None:
        if is_ours and not is_detecting:
            yield Finding(
                "warning",
                "metrics_config",
                "not set",
                "TorchServe's own list has none of the handlers' metrics, so they are dropped",
                _REMEDY,
            )
        return
    if not named.startswith("/"):
        yield Finding(
            "warning",
            "metrics_config",
            named,
            "it counts from the folder the server is started in, not from this file",
            "write an absolute path",
        )
    if subject.metrics_file.content is None:
        yield Finding(
            "problem",
            "metrics_config",
            named,
            f"it cannot be read ({subject.metrics_file.error}): no worker starts",
            _REMEDY,
        )
        return
    yield from _catalogue(named, subject.metrics_file.content, is_ours=is_ours, is_detecting=is_detecting)


def _has_our_handler(settings: Mapping[str, Any] | None) -> bool:
    """Tell our `handler:` table from one of TorchServe's own examples, as `handler: {max_length: 50}`."""
    handler = (settings or {}).get("handler")
    return isinstance(handler, dict) and set(handler) <= _OUR_SETTINGS


def _catalogue(named: str, content: Mapping[str, Any], *, is_ours: bool, is_detecting: bool) -> Iterator[Finding]:
    section = content.get("model_metrics")
    if not isinstance(section, dict) or not section:
        yield Finding("problem", "metrics_config", named, "it has no model_metrics: no worker starts", _REMEDY)
        return
    dimensions = {
        str(metric.get("name")): metric.get("dimensions")
        for metrics in section.values()
        if isinstance(metrics, list)
        for metric in metrics
        if isinstance(metric, dict)
    }
    if not is_ours:
        return
    missing = [spec.name for spec in CATALOGUE if spec.name not in dimensions]
    if missing and not is_detecting:
        yield Finding(
            "warning",
            "metrics_config",
            f"{named} without {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
            "TorchServe drops metrics it does not name",
            _REMEDY,
        )
    for spec in CATALOGUE:
        wanted = [*spec.dimensions, *_COMMON]
        if spec.name in dimensions and dimensions[spec.name] != wanted:
            yield Finding(
                "warning",
                "metrics_config",
                f"{spec.name} with dimensions {dimensions[spec.name]}",
                f"values are matched by position, and come as {wanted}",
                _REMEDY,
            )
