"""index_to_name.json -> the names of a model's labels."""

from __future__ import annotations

from pathlib import Path

from ts_handlers.config.reading import load_json
from ts_handlers.errors import ConfigError

LABELS_FILE = "index_to_name.json"


def read_labels(model_dir: Path, *, are_keys: bool = True) -> tuple[str, ...]:
    """Read index_to_name.json: {"0": name, ...}, or, as TorchServe's own have it, {"0": [id, name], ...}.

    Args:
        model_dir: The unpacked archive.
        are_keys: Whether answers are objects with labels as keys, so that each needs its own name.

    Raises:
        ConfigError: It is missing, or its indices are not 0 to n - 1.
    """
    file = model_dir / LABELS_FILE
    if not file.is_file():
        raise ConfigError('index_to_name.json is not in the archive; add it: {"0": "NEGATIVE", "1": "POSITIVE"}')
    try:
        names = load_json(file)
    except ValueError as error:
        raise ConfigError(f"index_to_name.json cannot be read: {error}; build the model again") from error
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise ConfigError('index_to_name.json must map "0", "1", ... to the names of the labels, without a gap')
    values = [names[str(index)] for index in range(len(names))]
    labels = tuple(str(value[-1] if isinstance(value, list) and value else value) for value in values)
    if are_keys and len(set(labels)) != len(labels):
        raise ConfigError("index_to_name.json gives two labels one name; give each its own")
    return labels
