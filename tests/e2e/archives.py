"""Archives put together by hand, where no build is tested."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.model_dirs import TASK_OF, ModelDirs, serialized_file
from ts_handlers.config.tasks import TASKS

CONFIG = "model-config.yaml"


def write_archive(path: Path, files: Mapping[str, str | bytes], **model: str) -> Path:
    """Write a .mar as torch-model-archiver does, version 1.0 of a model of its file's name.

    Args:
        path: The .mar.
        files: Its files, a model-config.yaml among them.
        model: What else the manifest says of the model.
    """
    content = {"modelName": path.stem, "modelVersion": "1.0", "configFile": CONFIG, **model}
    manifest = {"runtime": "python", "model": content, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def pack_model(path: Path, kind: str, model_dirs: ModelDirs, handler: str | None = None) -> Path:
    """Archive a model that may have been made before, by its kind; with a handler file of its own, if one is given."""
    folder = model_dirs.get(kind)
    name = TASKS[TASK_OF[kind]].handler
    files: dict[str, str | bytes] = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    files["handler.py"] = handler or f"from ts_handlers import {name}\n\n\nclass Handler({name}): ...\n"
    return write_archive(path, files, handler="handler.py", serializedFile=serialized_file(folder))
