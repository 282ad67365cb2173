"""What TorchServe says of the model a worker serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.errors import ConfigError
from ts_handlers.hosts.torchserve.frontend import max_response_bytes
from ts_handlers.runtime import ModelFiles


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model, as TorchServe hands it to a worker; it does not change while the worker lives.

    Attributes:
        name: The one it is registered under, which need not be that of its manifest.
        version: Its version in the manifest; None where it has none.
        files: The unpacked archive, and the GPU the worker was given.
        batch_size: Requests the frontend sends at once, at most.
        max_response_bytes: Largest answer the frontend takes; a larger one ends the worker.
        owns_process: Whether the process is this worker's alone; TorchServe's are.
    """

    name: str
    version: str | None
    files: ModelFiles
    batch_size: int
    max_response_bytes: int
    owns_process: bool

    @classmethod
    def of(cls, context: Any) -> ServedModel:
        """Read TorchServe's context.

        Raises:
            ConfigError: TS_HANDLERS_MAX_RESPONSE_SIZE is no positive integer.
        """
        properties = context.system_properties
        model = (context.manifest or {}).get("model", {})
        return cls(
            name=str(context.model_name),
            version=model.get("modelVersion"),
            files=ModelFiles(
                Path(properties["model_dir"]),
                model.get("serializedFile"),
                model.get("modelFile"),
                properties.get("gpu_id"),
            ),
            batch_size=max(1, int(properties.get("batch_size") or 1)),
            max_response_bytes=max_response_bytes(),
            owns_process=properties.get("owns_process", True),
        )


def check_communication(model_config: Mapping[str, Any], handle: Callable[..., Any]) -> None:
    """Refuse asyncCommunication for a handler that it cannot await: TorchServe would answer no request.

    Raises:
        ConfigError: model-config.yaml asks for it, and `handle` is no coroutine function.
    """
    if model_config.get("asyncCommunication") and not inspect.iscoroutinefunction(handle):
        raise ConfigError(
            "asyncCommunication is true in model-config.yaml, and this handler answers batches one by one; remove it. "
            "Images are decoded while the model computes without it"
        )
