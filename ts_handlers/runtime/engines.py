"""The one place that picks an engine."""

from __future__ import annotations

from collections.abc import Sequence

from ts_handlers.config import RuntimeConfig
from ts_handlers.cpu import CpuShare
from ts_handlers.runtime.session import ModelFiles, Session, Shape
from ts_handlers.runtime.target import check_target


def open_session(config: RuntimeConfig, files: ModelFiles, share: CpuShare, shapes: Sequence[Shape] = ()) -> Session:
    """Load the model with the configured engine, within the worker's share of the CPUs.

    Args:
        config: `handler.runtime`.
        files: The unpacked archive.
        share: The worker's share.
        shapes: Shapes of calls that occur again and again, for engines that compile graphs for some shapes.

    Raises:
        ConfigError: Settings that this engine cannot serve.
        RuntimeUnavailableError: The engine, or a provider that was asked for, is not there.
    """
    check_target(config)
    if config.backend == "onnx":
        from ts_handlers.runtime.onnx import OnnxSession  # an engine is imported by those who use it

        return OnnxSession(config, files, share)
    if config.backend == "openvino":
        from ts_handlers.runtime.openvino import OpenVinoSession

        return OpenVinoSession(config, files, share, shapes)
    if config.backend == "ipex":
        from ts_handlers.runtime.ipex import IpexSession

        return IpexSession(config, files)
    from ts_handlers.runtime.torch import TorchSession

    return TorchSession(config, files)
