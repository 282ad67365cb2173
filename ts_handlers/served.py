"""What TorchServe says of the model a worker serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.runtime import ModelFiles


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model, as TorchServe hands it to a worker; it does not change while the worker lives.

    Attributes:
        name: Its name in the manifest, else the one it is registered under.
        version: Its version in the manifest; None where it has none.
        files: The unpacked archive, and the GPU the worker was given.
        batch_size: Requests the frontend sends at once, at most.
        owns_process: Whether the process is this worker's alone; TorchServe's are.
    """

    name: str
    version: str | None
    files: ModelFiles
    batch_size: int
    owns_process: bool

    @classmethod
    def of(cls, context: Any) -> ServedModel:
        """Read TorchServe's context."""
        properties = context.system_properties
        model = (context.manifest or {}).get("model", {})
        return cls(
            name=str(model.get("modelName", context.model_name)),
            version=model.get("modelVersion"),
            files=ModelFiles(
                Path(properties["model_dir"]),
                model.get("serializedFile"),
                model.get("modelFile"),
                properties.get("gpu_id"),
            ),
            batch_size=max(1, int(properties.get("batch_size") or 1)),
            owns_process=properties.get("owns_process", True),
        )
