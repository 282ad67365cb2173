"""The one place that picks an engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError
from ts_handlers.machine import CpuShare
from ts_handlers.runtime.session import ModelFiles, Session
from ts_handlers.runtime.target import check_target
from ts_handlers.shapes import Shape

_SETTINGS_OF: Mapping[str, frozenset[str]] = {
    "onnx": frozenset({"providers", "provider_options", "graph_optimization_level", "share_weights", "allow_spinning"}),
    "openvino": frozenset({"float_precision", "embedding_file", "max_memory_mb"}),
    "torch": frozenset({"output_names", "output_keys"}),
    "ipex": frozenset({"output_names", "output_keys"}),
}
"""Backend -> settings that it has and not every other; the rest belong to all."""


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
    check_settings(config)
    check_target(config)
    if config.backend == "onnx":
        from ts_handlers.runtime.onnx.session import OnnxSession  # an engine is imported by those who use it

        return OnnxSession(config, files, share)
    if config.backend == "openvino":
        from ts_handlers.runtime.openvino import OpenVinoSession

        return OpenVinoSession(config, files, share, shapes)
    if config.backend == "ipex":
        from ts_handlers.runtime.torch.ipex import IpexSession

        return IpexSession(config, files)
    from ts_handlers.runtime.torch.session import TorchSession

    return TorchSession(config, files)


def check_settings(config: RuntimeConfig) -> None:
    """Refuse settings that only other engines have: they would do nothing here.

    Raises:
        ConfigError: There is one.
    """
    own = _SETTINGS_OF[config.backend]
    for field in dataclasses.fields(config):
        owners = [backend for backend, names in _SETTINGS_OF.items() if field.name in names]
        if owners and field.name not in own and getattr(config, field.name) != field.default:
            raise ConfigError(
                f"handler.runtime.{field.name} is {getattr(config, field.name)!r} and the backend is {config.backend}; only "
                f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'} that setting: remove it"
            )
