"""Names of labels, from a file: one a line, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ts_handlers.build.model_source import read_json
from ts_handlers.errors import OperatorError


def read_label_file(file: Path | None) -> tuple[str, ...] | None:
    """Read names of labels: a line each, or JSON: a list, or {"0": name or [id, name], ...}; None without a file.

    Raises:
        OperatorError: It cannot be read, or names none.
    """
    if file is None:
        return None
    if file.suffix != ".json":
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"--labels {file} cannot be read as UTF-8 text: {error}") from error
        names = [line.strip() for line in lines if line.strip()]
    else:
        values = read_json(file)
        if isinstance(values, Mapping):
            if set(values) != {str(index) for index in range(len(values))}:
                raise OperatorError(f'--labels {file} must map "0", "1", ... to names, without a gap')
            values = [values[str(index)] for index in range(len(values))]
        if not isinstance(values, list):
            raise OperatorError(f"--labels {file} holds a {type(values).__name__}; a list or an object is needed")
        names = [str(value[-1] if isinstance(value, list) and value else value) for value in values]
    if not names:
        raise OperatorError(f"--labels {file} names no label; write one a line")
    return tuple(names)


def with_own_names(labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    """Number labels that share a name where answers have them as keys: ImageNet has two cranes, a bird and a machine."""
    if task != "image-classification":
        return labels
    seen: set[str] = set()
    names = []
    for index, label in enumerate(labels):
        names.append(f"{label} ({index})" if label in seen else label)
        seen.add(label)
    return tuple(names)
