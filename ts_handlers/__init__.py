"""TorchServe handlers that use the CPUs, or the GPU, they were given, and nothing more.

Public names; importing the package does nothing else. Handlers load TorchServe and torch when they are first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ts_handlers.batching.padding import ModelInput
    from ts_handlers.errors import ConfigError, PayloadTooLargeError, RequestError
    from ts_handlers.handler import InferenceHandler
    from ts_handlers.text import (
        FeatureExtractionHandler,
        QuestionAnsweringHandler,
        TextClassificationHandler,
        TextHandler,
        TokenClassificationHandler,
    )
    from ts_handlers.vision import (
        ImageClassificationHandler,
        ImageHandler,
        ImageSegmentationHandler,
        ObjectDetectionHandler,
    )

__version__ = "0.1.0"

_HOMES = {
    "InferenceHandler": "handler",
    "ModelInput": "batching.padding",
    "ConfigError": "errors",
    "PayloadTooLargeError": "errors",
    "RequestError": "errors",
    "FeatureExtractionHandler": "text",
    "QuestionAnsweringHandler": "text",
    "TextClassificationHandler": "text",
    "TextHandler": "text",
    "TokenClassificationHandler": "text",
    "ImageClassificationHandler": "vision",
    "ImageHandler": "vision",
    "ImageSegmentationHandler": "vision",
    "ObjectDetectionHandler": "vision",
}

__all__ = [
    "ConfigError",
    "FeatureExtractionHandler",
    "ImageClassificationHandler",
    "ImageHandler",
    "ImageSegmentationHandler",
    "InferenceHandler",
    "ModelInput",
    "ObjectDetectionHandler",
    "PayloadTooLargeError",
    "QuestionAnsweringHandler",
    "RequestError",
    "TextClassificationHandler",
    "TextHandler",
    "TokenClassificationHandler",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ts_handlers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ts_handlers.{_HOMES[name]}"), name)
